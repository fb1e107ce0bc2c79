//! NOTIFICATION -> RECEIVER: a durable queue each, retries, dead letters; a slow receiver delays nobody else.

mod address;
mod attempt;
mod breaker;
mod retry;
mod store;
mod worker;

pub use address::{AddressError, Guard};
pub use attempt::{Client, ClientError, ClientSettings, Outcome};
pub use breaker::Breaker;
pub use retry::{Limits, full_jitter, retry_after};
pub use store::{DeadLetter, Enqueued, Kind, Message, ReceiverState, Store, StoreError, Transaction};
pub use worker::{Counters, Courier, Outbox};
