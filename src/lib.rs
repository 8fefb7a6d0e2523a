pub mod event;
pub mod invoice;
pub mod refusal;
pub mod report;
pub mod run;
pub mod source;
pub mod tree;
pub mod window;
