//! the map comes last
pub mod cli;
pub mod commands;
pub mod config;
pub mod event;
pub mod export;
pub mod invoice;
pub mod lock;
pub mod refusal;
pub mod report;
pub mod run;
pub mod source;
pub mod state;
pub mod tree;
pub mod window;
