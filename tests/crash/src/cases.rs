//! Deaths at moments that have a name.

use crate::Case;
use crate::machine::{Bench, Host, Subject, dies, kill, lives};

type Outcome = Result<(), String>;

pub const ALL: &[Case] = &[
    ("a_host_killed_after_create_takes_its_container_along", |bench| host_dies(bench, &["create"])),
    ("a_host_killed_after_start_takes_its_container_along", |bench| {
        host_dies(bench, &["create", "start"])
    }),
    ("a_host_killed_while_an_exec_runs_takes_its_container_along", |bench| {
        host_dies(bench, &["create", "start", "exec"])
    }),
    ("a_keeper_killed_after_create_takes_its_container_along", |bench| keeper_dies(bench, &[])),
    ("a_keeper_killed_after_start_takes_its_container_along", |bench| {
        keeper_dies(bench, &["start"])
    }),
    ("a_keeper_killed_while_an_exec_runs_takes_its_container_along", |bench| {
        keeper_dies(bench, &["start", "exec"])
    }),
    ("an_init_killed_before_start_makes_start_fail_and_delete_work", init_dies),
    ("a_host_and_a_keeper_killed_together_leave_what_the_next_delete_removes", |bench| {
        both_die(bench, "recover-delete")
    }),
    ("a_host_and_a_keeper_killed_together_leave_what_the_next_create_removes", |bench| {
        both_die(bench, "recover-create")
    }),
    ("a_detached_container_survives_its_host_and_can_be_opened_and_deleted", detached),
    ("a_detached_container_whose_creation_was_not_finished_goes_with_its_keeper", unfinished),
    ("an_orphan_survives_its_host_and_can_be_opened_and_deleted", orphan),
    ("create_takes_the_id_of_a_container_whose_host_died", reclaimed),
    ("of_two_hosts_that_create_one_id_exactly_one_wins", racing_creates),
    ("of_two_deletes_both_succeed_or_one_finds_nothing", racing_deletes),
];

fn steps(host: &mut Host, steps: &[&str]) -> Result<(i32, i32), String> {
    let pids = host.create()?;
    for step in steps {
        host.step(step)?;
    }
    Ok(pids)
}

fn host_dies(bench: &Bench, all: &[&str]) -> Outcome {
    let subject = bench.subject("");
    let mut host = subject.host("");
    let (init, keeper) = steps(&mut host, &all[1..])?;
    host.kill();
    // Nobody has to call anything: the keeper sees to it.
    dies(init)?;
    dies(keeper)?;
    subject.settle(|| {})?;
    subject.recovers()
}

fn keeper_dies(bench: &Bench, more: &[&str]) -> Outcome {
    for tidy in [true, false] {
        let subject = bench.subject("");
        let mut host = subject.host("");
        let (init, keeper) = steps(&mut host, more)?;
        kill(keeper);
        dies(init)?;
        expect(&host.step("status"), "stopped")?;
        if host.step("exec").is_ok() || host.step("start").is_ok() {
            return Err("something ran without a keeper".to_owned());
        }
        if tidy {
            host.step("delete")?;
            subject.settle_but(&host)?;
        }
        host.kill();
        subject.recovers()?;
    }
    Ok(())
}

fn expect(answer: &Result<String, String>, wanted: &str) -> Outcome {
    match answer {
        Ok(text) if text == wanted => Ok(()),
        other => Err(format!("{other:?} where {wanted:?} was expected")),
    }
}

fn init_dies(bench: &Bench) -> Outcome {
    let subject = bench.subject("");
    let mut host = subject.host("");
    let (init, keeper) = host.create()?;
    kill(init);
    dies(init)?;
    match host.step("start") {
        Err(error) if error.contains("stopped") || error.contains("died") => {}
        other => return Err(format!("start of a dead container: {other:?}")),
    }
    expect(&host.step("status"), "stopped")?;
    host.step("delete")?;
    dies(keeper)?;
    subject.settle_but(&host)?;
    host.kill();
    subject.recovers()
}

fn both_die(bench: &Bench, next: &str) -> Outcome {
    for more in [&[][..], &["start"], &["start", "exec"]] {
        let subject = bench.subject("");
        let mut host = subject.host("");
        let (init, keeper) = steps(&mut host, more)?;
        kill(keeper);
        host.kill();
        subject.run(next)?;
        dies(init)?;
        subject.settle(|| {})?;
        subject.recovers()?;
    }
    Ok(())
}

fn detached(bench: &Bench) -> Outcome {
    for more in [&[][..], &["start"], &["start", "exec"]] {
        let subject = bench.subject("detach");
        let mut host = subject.host("");
        let (init, keeper) = steps(&mut host, more)?;
        host.kill();
        let mut other = subject.host("");
        other.step("open")?;
        if !lives(init) || !lives(keeper) {
            return Err("it did not survive its host".to_owned());
        }
        if more.is_empty() {
            expect(&other.step("status"), "created")?;
            other.step("start")?;
        }
        expect(&other.step("status"), "running")?;
        expect(&other.step("run"), "Some(Code(0))")?;
        match other.step("create") {
            Err(error) if error.contains("Exists") => {}
            answer => return Err(format!("its id was free: {answer:?}")),
        }
        other.step("delete")?;
        dies(init)?;
        dies(keeper)?;
        other.kill();
        subject.settle(|| {})?;
        subject.recovers()?;
    }
    Ok(())
}

fn unfinished(bench: &Bench) -> Outcome {
    let subject = bench.subject("detach");
    let mut host = subject.host("");
    let (init, keeper) = host.create()?;
    // The second line is what the host writes last, and the keeper knows nothing of it.
    let record = bench.state().join(&subject.id).join("state.json");
    let text = std::fs::read_to_string(&record).map_err(|error| error.to_string())?;
    let (first, last) = text.trim_end().split_once('\n').ok_or("an unfinished record")?;
    assert!(last.contains("\"pid\""), "{last}");
    std::fs::write(&record, format!("{first}\n")).map_err(|error| error.to_string())?;
    host.kill();
    subject.recovers()?;
    dies(init)?;
    dies(keeper)?;
    subject.settle(|| {})
}

fn orphan(bench: &Bench) -> Outcome {
    for mode in ["orphan", "orphan,no-cgroups"] {
        let subject = bench.subject(mode);
        let mut host = subject.host("");
        let (init, _) = host.create()?;
        host.kill();
        let mut other = subject.host("");
        other.step("open")?;
        expect(&other.step("status"), "created")?;
        other.step("start")?;
        expect(&other.step("status"), "running")?;
        other.step("delete")?;
        dies(init)?;
        other.kill();
        subject.settle(|| {})?;
        subject.recovers()?;
    }
    Ok(())
}

fn reclaimed(bench: &Bench) -> Outcome {
    for more in [&[][..], &["start"], &["start", "exec"]] {
        let subject = bench.subject("");
        let mut host = subject.host("");
        let (init, _) = steps(&mut host, more)?;
        host.kill();
        // At once, while the keeper is cleaning up.
        subject.run("recover-create")?;
        dies(init)?;
        subject.settle(|| {})?;
        subject.recovers()?;
    }
    Ok(())
}

fn racing_creates(bench: &Bench) -> Outcome {
    for _ in 0..30 {
        let subject = bench.subject("");
        let mut hosts = [subject.host(""), subject.host("")];
        hosts.iter_mut().for_each(|host| host.ask("create"));
        let answers = hosts.each_mut().map(Host::answer);
        let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.is_ok());
        let refused = |answer: &&Result<String, String>| {
            answer.as_ref().is_err_and(|e| e.starts_with("Exists") || e.starts_with("Busy"))
        };
        if won.len() != 1 || !lost.iter().all(refused) {
            return Err(format!("{answers:?}"));
        }
        let winner = usize::from(answers[0].is_err());
        hosts[winner].step("start")?;
        expect(&hosts[winner].step("status"), "running")?;
        hosts[winner].step("delete")?;
        drop(hosts);
        subject.settle(|| {})?;
    }
    Ok(())
}

fn racing_deletes(bench: &Bench) -> Outcome {
    for round in 0..20 {
        let subject = bench.subject("");
        let mut host = subject.host("");
        steps(&mut host, &["start"])?;
        let mut other = subject.host("");
        other.step("open")?;
        let mut deleters = [host, other];
        deleters.iter_mut().for_each(|host| host.ask("delete"));
        let answers = deleters.each_mut().map(Host::answer);
        let fine = |answer: &Result<String, String>| match answer {
            Ok(_) => true,
            Err(error) => error.starts_with("NotFound"),
        };
        if !answers.iter().all(fine) || !answers.iter().any(Result::is_ok) {
            return Err(format!("round {round}: {answers:?}"));
        }
        drop(deleters);
        subject.settle(|| {})?;
    }
    Ok(())
}

impl Subject<'_> {
    /// As `settle`, while a host lives that has the mark.
    fn settle_but(&self, host: &Host) -> Outcome {
        let own = format!("process {} ", host.pid());
        let begun = std::time::Instant::now();
        loop {
            let mut left = self.leftovers();
            left.retain(|line| !line.starts_with(&own));
            if left.is_empty() {
                return Ok(());
            }
            if begun.elapsed() > crate::machine::PATIENCE {
                return Err(format!("left: {left:?}"));
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}
