//! The live view of `dev`: a [`Watcher`] asks the systems for a [`State`], [`view`] makes lines of it, and a [`Screen`]
//! draws them in place.

mod rate;
mod screen;
mod state;
pub mod view;
mod watcher;

pub(crate) use screen::Screen;
pub use state::{DeadLetterState, FunctionState, GeneratorState, Phase, State, TableState, TopicState};
pub(crate) use watcher::Watcher;
