//! Deaths at every system call: of everybody, in each of the lives that a container may have.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::Case;
use crate::machine::{Bench, Host, PATIENCE, Subject};
use crate::trace::{Deed, Role, Tracer};

pub const ALL: &[Case] = &[
    ("whoever_dies_at_whichever_system_call_nothing_is_left", |bench| explore(bench, &LIFE)),
    ("whoever_dies_beside_a_detached_container_nothing_is_left", |bench| explore(bench, &DETACHED)),
    ("whoever_dies_beside_a_container_without_keeper_nothing_is_left", |bench| {
        explore(bench, &ORPHAN)
    }),
    ("a_dead_deleter_leaves_what_the_next_one_removes", |bench| explore(bench, &DELETER)),
    ("a_dead_reclaimer_leaves_what_the_next_one_removes", |bench| explore(bench, &RECLAIMER)),
    ("a_create_at_any_moment_of_another_create_has_one_winner", |bench| explore(bench, &CONTENDER)),
];

/// What leads to the host that is traced.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    /// Another host has a running container of this id.
    Running,
    /// Another host, its container and its keeper have died.
    Wreck,
}

struct Scenario {
    name: &'static str,
    options: &'static str,
    before: Before,
    steps: &'static [&'static str],
    victims: &'static [Role],
    deed: Deed,
}

const WHOLE: &[&str] = &["create", "start", "run", "kill", "wait", "delete"];

const LIFE: Scenario = Scenario {
    name: "life",
    options: "overlay",
    before: Before::Nothing,
    steps: WHOLE,
    victims: &[Role::Host, Role::Intermediate, Role::Keeper, Role::Init, Role::Executed],
    deed: Deed::Kill,
};

const DETACHED: Scenario = Scenario {
    name: "detached",
    options: "detach",
    before: Before::Nothing,
    steps: WHOLE,
    victims: &[Role::Host, Role::Keeper],
    deed: Deed::Kill,
};

const ORPHAN: Scenario = Scenario {
    name: "orphan",
    options: "orphan",
    before: Before::Nothing,
    steps: WHOLE,
    victims: &[Role::Host, Role::Intermediate, Role::Keeper, Role::Init, Role::Executed],
    deed: Deed::Kill,
};

const DELETER: Scenario = Scenario {
    name: "deleter",
    options: "",
    before: Before::Running,
    steps: &["open", "delete"],
    victims: &[Role::Host],
    deed: Deed::Kill,
};

const RECLAIMER: Scenario = Scenario {
    name: "reclaimer",
    options: "",
    before: Before::Wreck,
    steps: &["create", "delete"],
    victims: &[Role::Host],
    deed: Deed::Kill,
};

const CONTENDER: Scenario = Scenario {
    name: "contender",
    options: "detach",
    before: Before::Nothing,
    steps: &["create"],
    victims: &[Role::Host, Role::Keeper, Role::Init],
    deed: Deed::Pause,
};

/// What comes after the crash.
#[derive(Debug, Clone, Copy)]
struct Way {
    /// At once, while the others are still noticing; or when they have.
    at_once: bool,
    /// The next call is a create on the same id; or a delete.
    create: bool,
    /// A host that survives deletes the container itself.
    tidy: bool,
}

impl Way {
    fn of(number: u64) -> Way {
        Way { at_once: number & 1 != 0, create: number & 2 != 0, tidy: number & 4 != 0 }
    }
}

#[derive(Clone, Copy)]
struct Point {
    victim: Role,
    at: u64,
    way: u64,
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn explore(bench: &Bench, scenario: &Scenario) -> Result<(), String> {
    let points = match setting("LOCULE_CRASH_POINT") {
        Some(point) => match named(scenario, &point) {
            Some(point) => vec![point],
            None => return Ok(()),
        },
        None => choose(scenario, &count(bench, scenario)?),
    };
    let queue = Mutex::new(points.into_iter());
    let reached: Mutex<HashMap<Role, u32>> = Mutex::default();
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from).min(4) {
            scope.spawn(|| {
                loop {
                    let Some(point) = queue.lock().expect("no panic").next() else { break };
                    match attempt(bench, scenario, point) {
                        Ok(true) => {
                            let mut reached = reached.lock().expect("no panic");
                            *reached.entry(point.victim).or_default() += 1;
                        }
                        Ok(false) => {}
                        Err(message) => {
                            let name = format!(
                                "{}:{:?}:{}:{}",
                                scenario.name, point.victim, point.at, point.way
                            );
                            let text =
                                format!("  {name} ({:?})\n    {message}", Way::of(point.way));
                            println!("{text}");
                            failures.lock().expect("no panic").push(text);
                        }
                    }
                }
            });
        }
    });
    let mut reached: Vec<_> = reached.into_inner().expect("no panic").into_iter().collect();
    reached.sort_by_key(|(role, _)| *role as u32);
    println!("  {}: points reached: {reached:?}", scenario.name);
    match failures.into_inner().expect("no panic").len() {
        0 => Ok(()),
        count => Err(format!("  {count} points failed, see above")),
    }
}

fn named(scenario: &Scenario, text: &str) -> Option<Point> {
    let parts: Vec<&str> = text.split(':').collect();
    let [name, victim, at, way] = parts[..] else { return None };
    let victim = scenario.victims.iter().find(|role| format!("{role:?}") == victim)?;
    (name == scenario.name).then_some(Point {
        victim: *victim,
        at: at.parse().ok()?,
        way: way.parse().ok()?,
    })
}

/// How many system calls everybody makes.
fn count(bench: &Bench, scenario: &Scenario) -> Result<HashMap<Role, u64>, String> {
    let subject = bench.subject(scenario.options);
    let before = prepare(&subject, scenario)?;
    let mut tracer = Tracer::spawn(subject.command("", scenario.steps), None);
    // A detached container outlives its host.
    tracer.until(Tracer::host_is_gone);
    if scenario.steps.contains(&"delete") {
        tracer.until(Tracer::everybody_is_gone);
    } else if !tracer.run(subject.command("", &["recover-delete"])) {
        return Err(format!("delete: {}", subject.said()));
    }
    drop(before);
    subject.settle(|| tracer.pump())?;
    Ok(tracer.counts.clone())
}

fn choose(scenario: &Scenario, counts: &HashMap<Role, u64>) -> Vec<Point> {
    let seed = setting("LOCULE_CRASH_SEED").and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |now| now.as_micros() as u64)
    });
    let all = setting("LOCULE_CRASH").is_some_and(|mode| mode == "all");
    let samples = setting("LOCULE_CRASH_SAMPLES").and_then(|samples| samples.parse().ok());
    let samples: u64 = samples.unwrap_or(20);
    let mut random = Random(seed);
    let mut points = Vec::new();
    for &victim in scenario.victims {
        let count = counts.get(&victim).copied().unwrap_or(0);
        if all || count <= samples {
            points.extend((1..=count).map(|at| Point { victim, at, way: random.next() % 8 }));
            continue;
        }
        // One of each stretch, so that no part of a life is left out.
        points.extend((0..samples).map(|sample| {
            let (first, last) = (sample * count / samples, (sample + 1) * count / samples);
            let at = first + 1 + random.next() % (last - first);
            Point { victim, at, way: random.next() % 8 }
        }));
    }
    let counts: Vec<_> = scenario
        .victims
        .iter()
        .map(|role| format!("{role:?} {}", counts.get(role).copied().unwrap_or(0)))
        .collect();
    println!(
        "  {}: system calls: {}; {} points, LOCULE_CRASH_SEED={seed}",
        scenario.name,
        counts.join(", "),
        points.len()
    );
    points
}

fn prepare(subject: &Subject<'_>, scenario: &Scenario) -> Result<Option<Host>, String> {
    if scenario.before == Before::Nothing {
        return Ok(None);
    }
    let mut host = subject.host("");
    let (_, keeper) = host.create()?;
    host.step("start")?;
    if scenario.before == Before::Running {
        return Ok(Some(host));
    }
    crate::machine::kill(keeper);
    host.kill();
    crate::machine::dies(keeper)?;
    Ok(None)
}

/// Whether the victim came to its system call; `Err` if something was left.
fn attempt(bench: &Bench, scenario: &Scenario, point: Point) -> Result<bool, String> {
    let subject = bench.subject(scenario.options);
    let way = Way::of(point.way);
    let before = prepare(&subject, scenario)?;
    let command = subject.command(if way.tidy { "tidy" } else { "" }, scenario.steps);
    let mut tracer = Tracer::spawn(command, Some((point.victim, point.at, scenario.deed)));
    let has_end = scenario.steps.contains(&"delete");
    tracer.until(|tracer| tracer.hit.is_some() || !has_end && tracer.host_is_gone());
    tracer.disarm();
    let hit = tracer.hit;
    let outcome = match scenario.deed {
        Deed::Kill => after_death(&subject, scenario, point.victim, way, &mut tracer, before),
        Deed::Pause => contend(&subject, &mut tracer),
    };
    let hung = tracer.somebody_hung();
    drop(tracer);
    let at = hit.map_or(String::new(), |(_, number)| format!("at system call {number}: "));
    let outcome = if hung { Err(format!("somebody hung{}", subject.said())) } else { outcome };
    outcome.and_then(|()| subject.works()).map_err(|message| format!("{at}{message}"))?;
    Ok(hit.is_some())
}

fn after_death(
    subject: &Subject<'_>,
    scenario: &Scenario,
    victim: Role,
    way: Way,
    tracer: &mut Tracer,
    before: Option<Host>,
) -> Result<(), String> {
    // A container that is to live on goes away by a delete alone, and its keeper stays.
    let stays = scenario.options.contains("detach") || scenario.options.contains("orphan");
    let survivor = before.is_some();
    if !way.at_once {
        tracer.within(PATIENCE, Tracer::host_is_gone);
        if !stays && !survivor && !tracer.within(PATIENCE, Tracer::everybody_is_gone) {
            return Err(format!("{:?} remain{}", tracer.present(), subject.said()));
        }
        // A host that has been told deletes the container by itself.
        if way.tidy && victim != Role::Host && !stays {
            subject.settle(|| tracer.pump())?;
        }
    }
    let create = way.create && !stays && !survivor;
    let step = if create { "recover-create" } else { "recover-delete" };
    if !tracer.run(subject.command("", &[step])) {
        return Err(format!("{step} failed{}", subject.said()));
    }
    drop(before);
    if way.at_once {
        // The host may be about to create it only now, or about to delete it.
        tracer.within(PATIENCE, Tracer::host_is_gone);
        tracer.run(subject.command("", &["recover-delete"]));
    }
    subject.settle(|| tracer.pump())
}

/// While one creates, another one creates the same.
fn contend(subject: &Subject<'_>, tracer: &mut Tracer) -> Result<(), String> {
    let begun = Instant::now();
    let other = tracer.run(subject.command("", &["create"]));
    let took = begun.elapsed();
    tracer.go_on();
    tracer.within(PATIENCE, Tracer::host_is_gone);
    let one = tracer.host_succeeded();
    if one == other {
        let who = if one { "both" } else { "nobody" };
        return Err(format!("{who} created it{}", subject.said()));
    }
    // Less than any patience of the library's, and enough for a busy machine.
    if took > Duration::from_secs(8) {
        return Err(format!("the second creator waited for {took:?}"));
    }
    if !tracer.run(subject.command("", &["recover-delete"])) {
        return Err(format!("delete: {}", subject.said()));
    }
    subject.settle(|| tracer.pump())
}
