//! The hooks that run when a container is no more.

use std::os::fd::AsRawFd;

use locule_plan::protocol::{Reply, Request, RequestKind};

use super::Runtime;
use super::create::{Keeper, plan_file};
use super::failure::error_of;
use crate::compile::{About, compile_poststop};
use crate::launch::{Deadline, Message, Relation, request};
use crate::{Result, Stage};

/// Runs them, one after the other. What fails is told to the log and to nobody else: the
/// container is gone all the same (runtime-spec, runtime.md, "Lifecycle").
pub(super) fn run(runtime: &Runtime, about: &About<'_>) {
    if let Err(error) = try_run(runtime, about) {
        tracing::warn!(%error, id = about.id, "poststop hooks could not be run");
    }
}

fn try_run(runtime: &Runtime, about: &About<'_>) -> Result<()> {
    let Some(plan) = compile_poststop(about)? else { return Ok(()) };
    // The container's own keeper has left with it, and this process does not fork.
    let (keeper, _) = Keeper::spawn(runtime, Relation::Silent)?;
    let plan = plan_file(&plan)?;
    // A hook may take as long as its own timeout lets it.
    let deadline = Deadline::within(None, None);
    let hooks = Request { kind: RequestKind::Hooks, flags: 0 };
    let replies = request(&keeper.channel, hooks, &[plan.as_raw_fd()], &deadline, Stage::Hook)?;
    while let Message::Reply(Reply::Failed(failure), _) = replies.next(&deadline, Stage::Hook)? {
        let error = error_of(&failure);
        tracing::warn!(%error, id = about.id, "a poststop hook failed");
    }
    keeper.see_off();
    Ok(())
}
