//! The gates' rules, case by case, and their drivers against an API server whose controllers the tests play.

mod api;
mod autoscaler;
mod bundles;
mod cluster;
mod drivers;
mod events;
mod ingress;
mod objects;
mod pod_signs;
mod rollout;
mod rollout_failures;
mod route;
mod settled;
mod workload;

pub(crate) use api::{Server, cx};

use super::Verdict;
use super::clock::Clock;
use super::rollout::{Snapshot, judge};

/// Noon of the day on which all cases play.
const NOON: &str = "2026-03-01T12:00:00Z";

/// So many seconds after noon, or before.
fn at(seconds: i64) -> jiff::Timestamp {
    let noon: jiff::Timestamp = NOON.parse().unwrap();
    noon.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap()
}

fn clock(seconds: i64) -> Clock {
    Clock::at(at(seconds))
}

/// The README's table of gates is the gates' own.
#[test]
fn the_readme_says_when_each_gate_opens() {
    let readme = include_str!("../../../README.md");
    let (_, table) =
        readme.split_once("| gate | opens when | if it stays closed |\n|---|---|---|\n").unwrap();
    let rows: Vec<_> = table
        .lines()
        .map_while(|line| line.strip_prefix("| `"))
        .map(|row| row.split(" | ").take(2).collect::<Vec<_>>())
        .collect();
    let gates: Vec<_> =
        super::all().iter().map(|gate| vec![format!("{}`", gate.name), gate.opens_when.to_owned()]).collect();
    assert_eq!(rows, gates);
}

/// Checks that a verdict's line is so.
#[track_caller]
fn expect<T>(verdict: &Verdict<T>, wanted: &str) {
    assert_eq!(verdict.to_string(), wanted);
}

/// A change of a complete rollout, and what its judge says then.
type Case = (&'static str, fn(&mut Snapshot));

fn judge_each<T>(judge: impl Fn(&Snapshot, &Clock) -> Verdict<T>, cases: &[Case]) {
    for (wanted, change) in cases {
        let mut world = objects::complete();
        change(&mut world);
        world.note(&clock(5));
        expect(&judge(&world, &clock(5)), wanted);
    }
}

fn each_pod(world: &mut Snapshot, change: impl Fn(&mut k8s_openapi::api::core::v1::Pod)) {
    world.pods.values_mut().for_each(change);
}

/// Judges now and then; the second at which it is doomed, as the gate's own recheck finds it.
fn doomed_after(world: &mut Snapshot, patience: i64) -> Option<(i64, String)> {
    let mut now = 0;
    loop {
        let clock = clock(now);
        world.note(&clock);
        if let verdict @ Verdict::Doomed(..) = judge(world, &clock) {
            return Some((now, verdict.to_string()));
        }
        // The gate wakes only when the judgement asked for it.
        now += i64::try_from(clock.next()?.as_secs()).unwrap().max(1);
        if now > patience {
            return None;
        }
    }
}
