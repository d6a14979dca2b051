//! Many lives of one log, with faults and deaths that a seed chooses.

use std::io;

use super::super::storage::simulated::Fault;
use super::*;

fn lives(seed: u64) {
    let mut random = Seeded(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut simulated = Simulated::new(512);
    let (mut world, mut died, mut time) = (World::default(), Died::Killed, 0);
    for life in 0..LIVES {
        let disk_bytes_max = (random.below(3) == 0).then(|| 4_096 * random.below(20));
        let config = Config { segment_bytes_max: 8_192 << random.below(3), disk_bytes_max, ..tiny() };
        if random.below(3) > 0 {
            simulated.fail_at(1 + random.below(60), fault(&mut random));
        }
        let before = taken(&simulated);
        let opened = open(simulated.clone(), config);
        assert_within(&simulated, config, before + 8_192);
        if let Ok((log, _, entries)) = opened {
            let judged = world.judge(&entries, died);
            assert!(judged.is_ok(), "seed {seed}, life {life}: {judged:?}");
            world = world.reborn(judged.unwrap());
            live(&simulated, log, &mut world, &mut time, &mut random);
        }
        let was_killed = random.below(2) == 0;
        // A failed sync leaves the page cache unlike the disk, and nothing that was not durable is promised any more.
        let faulty = simulated.has_fault();
        let next =
            if was_killed { simulated.after_kill() } else { simulated.after_power_cut(&mut || random.below(2) == 0) };
        let harmless = was_killed && !faulty && died == Died::Killed;
        died = if harmless { Died::Killed } else { Died::PowerCut };
        simulated = next;
        assert_opens(&simulated, &world, &mut died, seed, life);
    }
}

/// Without faults it opens, whatever happened. The judged world is of the file system before that open.
fn assert_opens(simulated: &Simulated, world: &World, died: &mut Died, seed: u64, life: u64) {
    let opened = open(simulated.after_kill(), tiny());
    assert!(opened.is_ok(), "seed {seed}, life {life}: {:?}", opened.err());
    let judged = world.judge(&opened.unwrap().2, *died);
    assert!(judged.is_ok(), "seed {seed}, life {life}, {died:?}: {judged:?}");
}

fn taken(simulated: &Simulated) -> u64 {
    simulated.files().values().map(|bytes| bytes.len() as u64).sum()
}

/// No more is taken than the limit, or than before where that was more.
fn assert_within(simulated: &Simulated, config: Config, before: u64) {
    let (taken, limit) = (taken(simulated), config.disk_bytes_max.unwrap_or(u64::MAX));
    assert!(taken <= before.max(limit), "{taken} bytes are taken, {before} before, and the limit is {limit}");
}

fn live(simulated: &Simulated, log: Log, world: &mut World, time: &mut i64, random: &mut Seeded) {
    for _ in 0..random.below(40) {
        *time += 1;
        let count = 1 + random.below(110);
        let before = taken(simulated);
        let alright = match random.below(10) {
            0..5 => world.append(&log, entry(*time, u16::try_from(count).unwrap())).is_ok(),
            5 | 6 => world.sync(&log).is_ok(),
            7 | 8 => log.maintain().is_ok(),
            _ => {
                let before = *time - random.below(25).cast_signed();
                world.retire(&log, before).is_ok()
            }
        };
        assert_within(simulated, log.config, before);
        if !simulated.has_fault() {
            assert_eq!(log.disk_bytes(), taken(simulated));
        }
        // Mostly nobody goes on after an error; sometimes somebody does.
        if !alright && random.below(4) > 0 {
            break;
        }
    }
    if random.below(3) == 0 {
        let _ = world.close(log);
    }
}

fn fault(random: &mut Seeded) -> Fault {
    let kind = [io::ErrorKind::StorageFull, io::ErrorKind::Other][usize::from(random.below(2) == 0)];
    match random.below(4) {
        0 => Fault::Error { kind, is_sticky: false },
        1 => Fault::Error { kind, is_sticky: true },
        _ => Fault::Crash,
    }
}

#[test]
fn a_log_survives_its_lives() {
    let seeds = std::env::var("DEDUPD_TEST_LOG_SEEDS").map_or(SEEDS, |seeds| seeds.parse().unwrap());
    for seed in 0..seeds {
        lives(seed);
    }
}

/// Enough for a second; more are asked for in the environment.
const SEEDS: u64 = 1_000;
const LIVES: u64 = 12;
