//! The real binary against real recordings and real HTTP receivers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at the first surprise")]

mod binary;
mod fixture;
mod receiver;

mod live;
mod policy;
mod restart;
mod rough;
mod tools;
mod verdicts;
mod webhook;
