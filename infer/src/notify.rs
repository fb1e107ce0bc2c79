//! DECISION -> NOTIFICATION: the bytes that a receiver gets, and the signature over them.

mod alertmanager;
mod cloudevent;
mod render;
mod signature;
mod template;

pub use alertmanager::{alertmanager, labels};
pub use cloudevent::{
    ActionPart, CONTENT_TYPE as CLOUD_EVENT_TYPE, GuardPart, Notice, cloud_event, group_id, storm_event,
};
pub use render::Renderer;
pub use signature::{KeyError, SigningKeys, TOLERANCE_SECONDS, Verifier, VerifyError};
pub use template::Template;
