//! Every death of a small life: three batches, one roll, two syncs, an ageing out.
//!
//! The life is run with a crash at each of its calls. After each the page cache is kept (a kill), or every subset of
//! what was not synced is (a power cut); then the log is opened, judged, used and opened again. All operations fail
//! at each call, too.

use std::io;

use super::super::storage::simulated::Fault;
use super::*;

/// All combinations of yes and no, as many as are asked for.
#[derive(Default)]
struct Choices {
    made: Vec<bool>,
    next: usize,
}

impl Choices {
    fn pick(&mut self) -> bool {
        if self.next == self.made.len() {
            self.made.push(false);
        }
        self.next += 1;
        self.made[self.next - 1]
    }

    fn advance(&mut self) -> bool {
        self.next = 0;
        while let Some(last) = self.made.pop() {
            if !last {
                self.made.push(true);
                return true;
            }
        }
        false
    }
}

/// Lives until the first error; none is that.
type Life = fn(&Simulated, &mut World) -> Option<()>;

/// Batches that nobody syncs, over a roll, and one sync at the end.
fn careless(simulated: &Simulated, world: &mut World) -> Option<()> {
    let (log, _, _) = open(simulated.clone(), tiny()).ok()?;
    for (time, count) in [(1, 60), (2, 90), (3, 100)] {
        world.append(&log, entry(time, count)).ok()?;
    }
    world.sync(&log).ok()
}

/// Syncs, a roll, an ageing out, a close.
fn live(simulated: &Simulated, world: &mut World) -> Option<()> {
    let (log, _, _) = open(simulated.clone(), tiny()).ok()?;
    world.append(&log, entry(1, 90)).ok()?;
    world.sync(&log).ok()?;
    log.maintain().ok()?;
    world.append(&log, entry(2, 90)).ok()?;
    world.append(&log, entry(3, 90)).ok()?;
    world.sync(&log).ok()?;
    log.maintain().ok()?;
    world.append(&log, entry(4, 40)).ok()?;
    world.retire(&log, 3).ok()?;
    log.maintain().ok()?;
    world.append(&log, entry(5, 5)).ok()?;
    world.close(log).ok()
}

/// A life over its limit: everything ages out before there is room for another batch.
fn starved(simulated: &Simulated, world: &mut World) -> Option<()> {
    let (log, _, _) = open(simulated.clone(), tiny()).ok()?;
    for time in 1..=3 {
        world.append(&log, entry(time, 90)).ok()?;
    }
    world.close(log).ok()?;
    let config = Config { segment_bytes_min: 12_288, disk_bytes_max: Some(24_000), ..tiny() };
    let (log, _, _) = open(simulated.clone(), config).ok()?;
    assert_ne!(append(&log, &entry(4, 256)).err()?.code(), "log_too_large");
    world.retire(&log, 4).ok()?;
    world.append(&log, entry(4, 256)).ok()?;
    world.sync(&log).ok()?;
    world.retire(&log, 5).ok()?;
    world.append(&log, entry(5, 5)).ok()?;
    world.close(log).ok()
}

fn calls() -> u64 {
    calls_of(live, 5)
}

fn calls_of(life: Life, durable: usize) -> u64 {
    let simulated = Simulated::new(SECTOR_BYTES);
    let mut world = World::default();
    life(&simulated, &mut world).unwrap();
    assert_eq!(world.durable, durable);
    simulated.calls()
}

/// Opens what was left, judges it, goes on, and opens again.
fn check(left: &Simulated, world: &World, died: Died) -> Result<usize, String> {
    let (log, _, entries) = open(left.clone(), tiny()).map_err(|error| format!("refused: {error}"))?;
    let end = world.judge(&entries, died)?;
    let mut next = world.reborn(end);
    next.append(&log, entry(100, 60)).map_err(|error| error.to_string())?;
    next.sync(&log).map_err(|error| error.to_string())?;
    let cut = left.after_power_cut(&mut || false);
    let (_, opening, entries) = open(cut, tiny()).map_err(|error| format!("refused the second time: {error}"))?;
    next.judge(&entries, Died::PowerCut)?;
    if opening.loss.is_some() {
        return Err(format!("a loss is reported twice: {:?}", opening.loss));
    }
    Ok(end)
}

#[test]
fn every_power_cut_leaves_a_prefix_with_all_that_was_durable() {
    let (mut states, mut cut_short) = (0_u64, 0_u64);
    let lives = [(live as Life, 5), (careless, 3), (starved, 5)];
    for (life, call) in
        lives.into_iter().flat_map(|(life, durable)| (1..=calls_of(life, durable)).map(move |call| (life, call)))
    {
        let simulated = Simulated::new(SECTOR_BYTES);
        let mut world = World::default();
        simulated.fail_at(call, Fault::Crash);
        life(&simulated, &mut world);
        let mut choices = Choices::default();
        for round in 0.. {
            let left = simulated.after_power_cut(&mut || choices.pick());
            let judged = check(&left, &world, Died::PowerCut);
            assert!(judged.is_ok(), "crash at call {call}, choices {:?}: {judged:?}", choices.made);
            states += 1;
            if !choices.advance() {
                break;
            }
            if round == SUBSETS_MAX {
                cut_short += 1;
                break;
            }
        }
    }
    assert!(states > 1_000, "only {states} states");
    assert_eq!(cut_short, 0, "of {states} states not all were tried");
}

#[test]
fn every_kill_leaves_all_that_was_answered() {
    for call in 1..=calls() {
        let simulated = Simulated::new(SECTOR_BYTES);
        let mut world = World::default();
        simulated.fail_at(call, Fault::Crash);
        live(&simulated, &mut world);
        let judged = check(&simulated.after_kill(), &world, Died::Killed);
        assert!(judged.is_ok(), "crash at call {call}: {judged:?}");
    }
}

#[test]
fn recovery_may_be_killed_at_every_call() {
    let mut random = Seeded(11);
    for call in 1..=calls() {
        let simulated = Simulated::new(SECTOR_BYTES);
        let mut world = World::default();
        simulated.fail_at(call, Fault::Crash);
        live(&simulated, &mut world);
        let left = simulated.after_power_cut(&mut || random.below(2) == 0);
        let found = open(left.after_kill(), tiny()).unwrap().2;
        for at in 1.. {
            let interrupted = left.after_kill();
            interrupted.fail_at(at, Fault::Crash);
            let is_over = open(interrupted.clone(), tiny()).is_ok();
            for next in [interrupted.after_kill(), interrupted.after_power_cut(&mut || random.below(2) == 0)] {
                let again = open(next, tiny()).map(|opened| opened.2);
                assert_eq!(again.ok().as_ref(), Some(&found), "crash at call {call}, again at call {at}");
            }
            if is_over {
                break;
            }
        }
    }
}

/// As [`live`], but goes on after errors.
fn insist(simulated: &Simulated, world: &mut World) {
    let Ok((log, _, _)) = open(simulated.clone(), tiny()) else { return };
    for time in 1..6 {
        let _ = world.append(&log, entry(time, 90));
        let _ = world.sync(&log);
        let _ = log.maintain();
        let _ = world.retire(&log, time - 2);
    }
    let _ = world.close(log);
}

#[test]
fn every_call_may_fail_once_or_for_good() {
    let kinds = [io::ErrorKind::StorageFull, io::ErrorKind::Other];
    let faults = kinds.into_iter().flat_map(|kind| [false, true].map(|is_sticky| Fault::Error { kind, is_sticky }));
    for fault in faults {
        for call in 1..=calls() * 2 {
            let simulated = Simulated::new(SECTOR_BYTES);
            let mut world = World::default();
            simulated.fail_at(call, fault);
            insist(&simulated, &mut world);
            simulated.heal();
            // After a failed sync the page cache lies, so a kill is judged as a power cut is.
            for left in [simulated.after_kill(), simulated.after_power_cut(&mut || false)] {
                let judged = check(&left, &world, Died::PowerCut);
                assert!(judged.is_ok(), "{fault:?} at call {call}: {judged:?}");
            }
        }
    }
}

#[test]
fn a_disk_that_does_not_sync_is_noticed_by_the_judge() {
    let simulated = Simulated::lying(SECTOR_BYTES);
    let mut world = World::default();
    live(&simulated, &mut world).unwrap();
    let judged = check(&simulated.after_power_cut(&mut || false), &world, Died::PowerCut);
    assert!(judged.is_err(), "the power cut lost everything, and the judge says {judged:?}");
}

const SECTOR_BYTES: usize = 512;
const SUBSETS_MAX: u64 = 1 << 17;
