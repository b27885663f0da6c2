//! The hooks that run when the container has no keeper: poststop when it is no more, and poststart
//! where its keeper has left after the creation.

use std::os::fd::AsRawFd;

use locule_plan::protocol::{Reply, Request, RequestKind};

use super::Runtime;
use super::create::{Keeper, plan_file};
use super::failure::error_of;
use crate::compile::{About, Plan, compile_before_restored, compile_poststart, compile_poststop};
use crate::launch::{Deadline, Message, Relation, request};
use crate::{Error, Result, Stage};

/// Runs the poststart hooks up to the first that fails.
pub(super) fn poststart(
    runtime: &Runtime,
    about: &About<'_>,
    pid: i32,
    deadline: &Deadline<'_>,
) -> Result<()> {
    let Some(plan) = compile_poststart(about, pid)? else { return Ok(()) };
    run(runtime, &plan, deadline, &mut Err)
}

/// Runs those of a creation for a container that is being restored and has its namespaces.
pub(super) fn before_restored(
    runtime: &Runtime,
    about: &About<'_>,
    pid: i32,
    deadline: &Deadline<'_>,
) -> Result<()> {
    let Some(plan) = compile_before_restored(about, pid)? else { return Ok(()) };
    run(runtime, &plan, deadline, &mut Err)
}

/// Runs the poststop hooks, one after the other. What fails is told to the log and to nobody else:
/// the container is gone all the same (runtime-spec, runtime.md, "Lifecycle").
pub(super) fn poststop(runtime: &Runtime, about: &About<'_>) {
    if let Err(error) = try_poststop(runtime, about) {
        tracing::warn!(%error, id = about.id, "poststop hooks could not be run");
    }
}

fn try_poststop(runtime: &Runtime, about: &About<'_>) -> Result<()> {
    let Some(plan) = compile_poststop(about)? else { return Ok(()) };
    // A hook may take as long as its own timeout lets it.
    let deadline = Deadline::within(None, None);
    run(runtime, &plan, &deadline, &mut |error| {
        tracing::warn!(%error, id = about.id, "a poststop hook failed");
        Ok(())
    })
}

/// Has a keeper run them, because this process does not fork.
fn run(
    runtime: &Runtime,
    plan: &Plan,
    deadline: &Deadline<'_>,
    failed: &mut dyn FnMut(Error) -> Result<()>,
) -> Result<()> {
    let (keeper, _) = Keeper::spawn(runtime, Relation::Silent)?;
    let plan = plan_file(plan)?;
    let hooks = Request { kind: RequestKind::Hooks, flags: 0 };
    let replies = request(&keeper.channel, hooks, &[plan.as_raw_fd()], deadline, Stage::Hook)?;
    while let Message::Reply(Reply::Failed(failure), _) = replies.next(deadline, Stage::Hook)? {
        failed(error_of(&failure))?;
    }
    keeper.see_off();
    Ok(())
}
