/** The topic that keeps transactional ids and the transactions that are decided. */
export const TRANSACTION_TOPIC = '__transaction_state';
