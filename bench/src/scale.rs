//! Many containers at once: does a start cost more the more there are?
//!
//! The kernel itself gets slower (cgroups, network namespaces and mounts are in lists), so the
//! floor is measured beside the same population, and only what grows beyond it counts.

use std::cell::RefCell;
use std::rc::Rc;

use crate::Result;
use crate::contender::Server;
use crate::sample::median;

/// What was measured while this many containers were held.
pub struct Level {
    /// How many.
    pub held: usize,
    /// Starts a second of Locule at two threads.
    pub locule: f64,
    /// Starts a second of two floors together.
    pub floor: f64,
    /// Kilobytes of a keeper.
    pub keeper: f64,
}

/// Fills the host up to each level in turn and empties it at the end.
pub fn measure(
    host: &Rc<RefCell<Server>>,
    floors: &mut [Server; 2],
    levels: &[usize],
    starts: usize,
    repetitions: usize,
) -> Result<Vec<Level>> {
    let mut measured = Vec::new();
    for &held in levels {
        let mut host = host.borrow_mut();
        host.ask(&format!("hold {held}"))?;
        let [mut locule, mut floor] = [Vec::new(), Vec::new()];
        host.ask("rate 20")?;
        for _ in 0..repetitions {
            locule.extend(host.ask(&format!("rate {starts}"))?);
            let begin = std::time::Instant::now();
            for server in floors.iter_mut() {
                server.tell(&format!("{}", starts / 2))?;
            }
            for server in floors.iter_mut() {
                server.answer()?;
            }
            floor.push((starts / 2 * 2) as f64 / begin.elapsed().as_secs_f64());
        }
        let keeper = if held == 0 { f64::NAN } else { median(&host.ask("keepers 0")?) };
        let (locule, floor) = (median(&locule), median(&floor));
        measured.push(Level { held, locule, floor, keeper });
    }
    host.borrow_mut().ask("hold 1")?;
    Ok(measured)
}
