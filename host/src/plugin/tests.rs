//! Tests over the shipped policies and over real components.

mod policies;
