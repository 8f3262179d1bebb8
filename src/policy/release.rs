//! How a version takes another one's place: at once, or a part of the clients at a time, for as long as nothing speaks
//! against it. [`course`] is the way it goes, [`judge`] finds out whether it does harm, [`canary`] is what requests see.

mod canary;
mod cells;
mod course;
mod desk;
mod evidence;
mod history;
mod judge;
mod keys;
mod odds;
mod recent;
mod settings;
mod times;

pub use canary::{Canary, Side, Told, Watched};
pub use cells::{CELLS, Cell, Counted};
pub use course::{Course, Move, Progress};
pub use desk::{Desk, Order, Ordered, Refused};
pub use evidence::{Evidence, Example, Seen};
pub use history::{Good, History, Kept, Lying, Pair, Pin, Quarantined, Released, is_id};
pub use judge::{Bounds, Guilt, Harm, Judge, Slow};
pub use settings::{Mode, Settings, StickyOn};
pub use times::Times;

#[cfg(test)]
mod tests;
