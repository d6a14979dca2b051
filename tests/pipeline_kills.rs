//! A process that runs a pipeline on a state is killed, again and again. Goal: whatever step it dies in, each delivery mode keeps its
//! promise, and nothing that was told to be settled is ever lost. Method: this test again as a process of its own, which dies
//! by its own hand between two steps, or by its parent's at any moment; the next one sends again from what is settled. What came out is
//! held against what they told of their lives. `DEDUPD_KILLS=1000 cargo test --test pipeline_kills` for a long run.

mod common;
mod victim;

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use common::disk::Disk;
use common::kills::count;
use victim::audit::{Lives, Out, Wrong, uninterrupted};
use victim::plan::{Fault, GAPS, Gap, Level, Mode, Plan, QUEUE, Shape, Way};
use victim::{journal, live};

#[test]
fn at_least_once_loses_nothing_and_repeats_only_what_was_in_flight() {
    for (level, shape) in [
        (Level::Process, Shape::One),
        (Level::Interval, Shape::One),
        (Level::PowerLoss, Shape::One),
        (Level::Process, Shape::Lane),
        (Level::Process, Shape::Each),
        (Level::Process, Shape::Tee),
        (Level::Interval, Shape::Tee),
    ] {
        let repeats = Trial::new(Mode::AtLeast, level, shape).run(kills(7)).audit().expect("kept");
        assert!(repeats > 0, "{level:?} {shape:?}: no kill hit what was out and not committed");
    }
}

#[test]
fn exactly_once_leaves_what_an_uninterrupted_run_leaves() {
    for level in [Level::Process, Level::Interval, Level::PowerLoss] {
        let trial = Trial::new(Mode::Exactly, level, Shape::One).run(kills(3));
        trial.audit().expect("kept");
        let calm = Trial::new(Mode::Exactly, level, Shape::One);
        calm.finish(trial.lives().end());
        assert!(calm.file("out") == trial.file("out"), "{level:?}");
    }
}

#[test]
fn at_most_once_repeats_nothing_and_loses_only_what_was_in_flight() {
    for (level, shape) in [
        (Level::Process, Shape::One),
        (Level::Interval, Shape::One),
        (Level::PowerLoss, Shape::One),
        (Level::Process, Shape::Each),
        (Level::Process, Shape::Tee),
    ] {
        let lost = Trial::new(Mode::AtMost, level, shape).run(kills(5)).audit().expect("kept");
        assert!(lost > 0, "{level:?} {shape:?}: no kill hit what was committed and not out");
    }
}

#[test]
fn the_audit_notices_what_is_wrong() {
    for (mode, fault, gap) in [
        (Mode::AtLeast, Fault::Skips, Gap::AfterDeliver),
        (Mode::AtLeast, Fault::Runs(Mode::AtMost), Gap::BeforeDeliver),
        (Mode::Exactly, Fault::Skips, Gap::AfterDeliver),
        (Mode::Exactly, Fault::KeepsAll, Gap::AfterDeliver),
        (Mode::AtMost, Fault::Skips, Gap::AfterSettled),
        (Mode::AtMost, Fault::Runs(Mode::AtLeast), Gap::AfterDeliver),
    ] {
        let mut trial = Trial::new(mode, Level::Process, Shape::One);
        trial.plan.fault = fault;
        for count in [150, 250] {
            trial.kill(&Plan { gap, count, ..trial.plan.clone() });
        }
        trial.finish(trial.lives().end() + 200);
        let found = trial.audit().expect_err("wrong");
        let is_right = match (fault, &found) {
            (_, Wrong::Different) => mode == Mode::Exactly,
            (Fault::Skips, Wrong::Lost(at)) => at % 10 == 0,
            (Fault::Runs(Mode::AtMost), Wrong::Lost(_)) => true,
            (Fault::Runs(Mode::AtLeast), Wrong::Repeated(_)) => true,
            _ => false,
        };
        assert!(is_right, "{mode:?} {fault:?}: {found}");
    }
}

/// The other processes are this.
#[test]
fn a_child() {
    if let Ok(plan) = std::env::var(CHILD) {
        live(serde_json::from_str(&plan).expect("a plan"));
    }
}

/// The lines of a file that were not on disk are lost with the power, and nothing of that was told to be settled: it comes again.
#[test]
fn what_was_settled_survives_power_cuts() {
    let cuts = count("DEDUPD_CUTS", 4).div_ceil(2).max(GAPS.len() as u64);
    for kind in ["ext4", "xfs"] {
        for (mode, level, shape) in [
            (Mode::AtLeast, Level::Interval, Shape::One),
            (Mode::AtLeast, Level::PowerLoss, Shape::Tee),
            (Mode::Exactly, Level::Interval, Shape::One),
            (Mode::Exactly, Level::PowerLoss, Shape::One),
        ] {
            let Some(disk) = Disk::new(kind) else { continue };
            let trial = Trial::on(disk, mode, level, shape).run(cuts);
            trial.audit().unwrap_or_else(|wrong| panic!("{kind}, {mode:?}, {level:?}: {wrong}"));
        }
    }
}

/// A state, what its processes write, and what the next one is to do.
struct Trial {
    /// Loses its power with each kill.
    disk: Option<Disk>,
    dir: tempfile::TempDir,
    plan: Plan,
}

impl Trial {
    fn new(mode: Mode, level: Level, shape: Shape) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let plan = Plan {
            journal: dir.path().to_owned(),
            dir: dir.path().to_owned(),
            mode,
            level,
            shape,
            gap: Gap::Nowhere,
            count: 0,
            branch: 0,
            way: Way::Producer,
            acknowledged: None,
            until: None,
            fault: Fault::None,
        };
        Self { disk: None, dir, plan }
    }

    fn on(disk: Disk, mode: Mode, level: Level, shape: Shape) -> Self {
        let Self { dir, plan, .. } = Self::new(mode, level, shape);
        let plan = Plan { dir: disk.root(), ..plan };
        Self { disk: Some(disk), dir, plan }
    }

    /// Kills so many, and has one come to an end.
    fn run(self, kills: u64) -> Self {
        for kill in 0..kills {
            let plan = self.plan.nth(kill);
            // A source that was told what is settled sends nothing of it again; one that asks the pipeline may.
            let acknowledged = || self.lives().settled().checked_sub(1);
            let acknowledged = if kill > 0 && kill % 2 == 1 { acknowledged() } else { None };
            self.kill(&Plan { acknowledged, ..plan });
        }
        self.finish(self.lives().end() + 300);
        self
    }

    fn kill(&self, plan: &Plan) {
        let said = journal::words(self.dir.path());
        let mut child = spawn(plan);
        if plan.gap == Gap::Anywhere {
            wait(&mut child, || journal::words(self.dir.path()) > said + plan.count * 2);
            std::thread::sleep(Duration::from_micros(plan.count * 7_919 % 3_000));
            child.kill().expect("killed");
        }
        let status = wait(&mut child, || false).expect("it ends");
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{plan:?}");
        if let Some(disk) = &self.disk {
            disk.cut();
            disk.restart();
        }
        assert!(plan.gap == Gap::Anywhere || self.lives().died_as_planned(), "{plan:?}");
    }

    fn finish(&self, until: u64) {
        let mut child = spawn(&Plan { until: Some(until), ..self.plan.clone() });
        let status = wait(&mut child, || false).expect("it ends");
        assert!(status.success(), "{status}");
        let settled = self.lives().settled();
        assert_eq!(settled, until, "not all is settled");
    }

    /// Whether the mode's promise is kept; how many events came twice, or not at all.
    fn audit(&self) -> Result<usize, Wrong> {
        let (lives, files) = (self.lives(), self.plan.shape.files());
        let texts: Vec<String> = files.iter().map(|name| self.file(name)).collect();
        let (outs, capacity) = match self.plan.shape {
            Shape::Each => (vec![Out::read(&texts.concat())], 2 * QUEUE),
            Shape::Lane => (vec![Out::read(&texts[0])], 2 * QUEUE),
            Shape::One | Shape::Tee => (texts.iter().map(|text| Out::read(text)).collect(), QUEUE),
        };
        let mut odd = 0;
        for out in &outs {
            match self.plan.mode {
                Mode::AtLeast => lives.check_at_least_once(out, capacity)?,
                Mode::AtMost => lives.check_at_most_once(out, capacity)?,
                Mode::Exactly if texts[0] != uninterrupted(lives.end()) => return Err(Wrong::Different),
                Mode::Exactly => lives.check_at_least_once(out, 0)?,
            }
            odd += out.repeats() + out.missing(lives.end());
        }
        Ok(odd)
    }

    fn lives(&self) -> Lives {
        Lives::read(self.dir.path())
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.plan.dir.join(name)).expect("a file of text")
    }
}

/// Starts this program again, as a child.
fn spawn(plan: &Plan) -> Child {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "a_child", "--nocapture", "--test-threads=1"])
        .env(CHILD, serde_json::to_string(plan).expect("a plan"))
        .stdout(Stdio::null())
        .spawn()
        .expect("a child")
}

/// Waits until the child has ended, or `is_enough`.
fn wait(child: &mut Child, is_enough: impl Fn() -> bool) -> Option<ExitStatus> {
    let end = Instant::now() + STUCK;
    while Instant::now() < end {
        if let Some(status) = child.try_wait().expect("a child") {
            return Some(status);
        }
        if is_enough() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().expect("killed");
    panic!("the child is stuck");
}

/// The kills of one of `trials`, each gap at least once.
fn kills(trials: u64) -> u64 {
    (count("DEDUPD_KILLS", 0) / trials).max(GAPS.len() as u64 * 2)
}

const CHILD: &str = "DEDUPD_TEST_PIPELINE_KILLED";
const STUCK: Duration = Duration::from_secs(20);
