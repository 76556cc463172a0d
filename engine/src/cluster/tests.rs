//! The rules of several servers against each other, with callers and foci that do what they are told.

mod chaos;
mod drains;
mod members;
mod net;
mod one;
mod placing;
mod reasons;
mod recalls;
mod rules;
mod service;
