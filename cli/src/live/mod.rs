//! The live view of `dev`: a [`Sight`] asks the systems, a [`Watcher`] combines their answers and the functions' own
//! counts into a [`State`], [`view`] turns it into lines, and a [`Screen`] draws them in place.

mod rate;
mod screen;
mod sight;
mod state;
pub mod view;
mod watcher;

pub(crate) use screen::Screen;
pub(crate) use sight::{Seen, Sight};
pub use state::{DeadLetterState, FunctionState, GeneratorState, Phase, State, TableState, TopicState};
pub(crate) use watcher::Watcher;
