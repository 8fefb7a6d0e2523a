pub mod name;
pub mod walk;
