//! A process that keeps a state is killed with `kill -9`, again and again. Goal: whatever it was answered is known to the
//! next one, what it was told to forget is not, and nothing else is. Method: see `common/kills.rs`. The same with the power
//! of a file system that is cut under it.
//! `DEDUPD_KILLS=1000 DEDUPD_CUTS=100 cargo test --test state_kill` for a long run.

mod common;

use common::disk::Disk;
use common::kills::{Books, child, count, run_and_kill, told};

const TEST: &str = "what_was_answered_survives_kills";

#[test]
fn what_was_answered_survives_kills() {
    if let Some(told) = told() {
        return child(&told);
    }
    let kills = count("DEDUPD_KILLS", 24);
    for level in ["process", "interval", "power-loss"] {
        let dir = tempfile::tempdir().unwrap();
        let mut books = Books::default();
        let mut kill = 0;
        while books.want_another(kill, kills / 3) {
            run_and_kill(TEST, dir.path(), level, &mut books, kill, |_| {});
            books.check(dir.path(), level, kill);
            kill += 1;
        }
        books.check_that_something_was_tested(level);
    }
}

/// `power-loss` promises it for every answer, `synced` asks for it before it says that something is done.
#[test]
fn what_was_answered_as_durable_survives_power_cuts() {
    let cuts = count("DEDUPD_CUTS", 4);
    for kind in ["ext4", "xfs"] {
        for level in ["power-loss", "synced"] {
            let Some(disk) = Disk::new(kind) else { return };
            let dir = disk.root().join("state");
            let mut books = Books::default();
            let mut cut = 0;
            while books.want_another(cut, cuts.div_ceil(2)) {
                run_and_kill(TEST, &dir, level, &mut books, cut, |_| disk.cut());
                disk.restart();
                books.check(&dir, level, cut);
                cut += 1;
            }
            books.check_that_something_was_tested(level);
        }
    }
}
