//! DECISION -> NOTIFICATION: the bytes that a receiver gets, and the signature over them.

mod alertmanager;
mod cloudevent;
mod signature;

pub use alertmanager::alertmanager;
pub use cloudevent::{
    ActionPart, CONTENT_TYPE as CLOUD_EVENT_TYPE, GuardPart, Notice, cloud_event, storm_event,
};
pub use signature::{KeyError, SigningKeys, TOLERANCE_SECONDS, Verifier, VerifyError};
