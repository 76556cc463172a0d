//! The rules of several servers against each other, with callers and foci that do what they are told.

mod chaos;
mod members;
mod net;
mod one;
mod placing;
mod reasons;
mod rules;
mod service;
