//! What is counted of a canary's requests and of the live version's: in cells of clients, so that one client that always
//! fails can be told from a version that does.

use super::times::Times;

/// Cells that keys are dealt to, by their hash. A share of the clients is a share of the cells.
pub const CELLS: usize = 1024;

/// What came of the requests of one cell's clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cell {
    /// Exchanges about which the policy was asked.
    pub requests: u32,
    /// Those that were answered with 500 or more, by whomever.
    pub bad: u32,
    /// Those whose head came later than for nine in ten, lately.
    pub slow90: u32,
    /// The same for 99 in a hundred.
    pub slow99: u32,
    /// Calls that went wrong for what the machine had to give: time, memory, stack.
    pub starved: u32,
}

impl Cell {
    pub(super) fn add(&mut self, other: &Cell) {
        self.requests = self.requests.saturating_add(other.requests);
        self.bad = self.bad.saturating_add(other.bad);
        self.slow90 = self.slow90.saturating_add(other.slow90);
        self.slow99 = self.slow99.saturating_add(other.slow99);
        self.starved = self.starved.saturating_add(other.starved);
    }
}

/// What was counted from one tick to the next: of the live version, and of the canary.
#[derive(Debug, Clone)]
pub struct Counted {
    /// [`CELLS`] of each side.
    pub cells: [Box<[Cell]>; 2],
    /// How long the heads of the answers took.
    pub times: [Times; 2],
}

impl Default for Counted {
    fn default() -> Self {
        let cells = || vec![Cell::default(); CELLS].into_boxed_slice();
        Counted { cells: [cells(), cells()], times: Default::default() }
    }
}

impl Counted {
    /// Requests of the live version and of the canary.
    pub fn requests(&self) -> [u64; 2] {
        [0, 1].map(|side: usize| {
            let cells = self.cells.get(side).into_iter().flatten();
            cells.map(|cell| u64::from(cell.requests)).sum()
        })
    }

    /// Those cells of each side that had requests, with their places.
    pub(super) fn busy(&self) -> [Vec<(usize, Cell)>; 2] {
        let busy = |cells: &[Cell]| {
            let places = cells.iter().enumerate();
            places.filter(|(_, cell)| cell.requests > 0).map(|(place, cell)| (place, *cell)).collect()
        };
        self.cells.each_ref().map(|cells| busy(cells))
    }
}
