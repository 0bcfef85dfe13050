//! What each verb of the program does.

pub mod build;
pub mod inspect;
pub mod verify;
