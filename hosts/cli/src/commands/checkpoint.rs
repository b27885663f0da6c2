//! `checkpoint`, and what `restore` has in common with it.

use std::os::fd::{BorrowedFd, RawFd};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ArgMatches;
use locule::{CheckpointOptions, CriuOptions, ManageCgroups, NetworkLock};

use super::{Done, ending, id, remove};
use crate::arguments::{Global, path, text, texts};
use crate::failure::Failure;

pub fn checkpoint(global: &Global, own: &ArgMatches) -> Done {
    let container = ending(global)?.open(id(own))?;
    let options = CheckpointOptions {
        criu: criu_options(own)?,
        parent: path(own, "parent-path"),
        pre_dump: own.get_flag("pre-dump"),
        leave_running: own.get_flag("leave-running"),
        tcp_skip_in_flight: own.get_flag("tcp-skip-in-flight"),
        tcp_close: own.get_flag("tcp-close"),
        link_remap: own.get_flag("link-remap"),
        page_server: page_server(own)?,
        status: status_of(own)?,
    };
    container.checkpoint(&options)?;
    // What is dead is of no use: only the images are.
    if !options.leave_running && !options.pre_dump {
        remove(&container)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub fn criu_options(own: &ArgMatches) -> Result<CriuOptions<'static>, Failure> {
    for namespace in texts(own, "empty-ns") {
        if namespace != "network" {
            return Err(Failure::of(format!("namespace {namespace:?} is not supported")));
        }
    }
    let image_dir = path(own, "image-path").unwrap_or_else(|| PathBuf::from("checkpoint"));
    let chosen = |name: &str| text(own, name).filter(|text| !text.is_empty());
    Ok(CriuOptions {
        work_dir: path(own, "work-path"),
        tcp_established: own.get_flag("tcp-established"),
        external_unix_sockets: own.get_flag("ext-unix-sk"),
        shell_job: own.get_flag("shell-job"),
        file_locks: own.get_flag("file-locks"),
        lazy_pages: own.get_flag("lazy-pages"),
        auto_dedup: own.get_flag("auto-dedup"),
        manage_cgroups: match chosen("manage-cgroups-mode") {
            None => ManageCgroups::Default,
            Some("soft") => ManageCgroups::Soft,
            Some("full") => ManageCgroups::Full,
            Some("strict") => ManageCgroups::Strict,
            Some("ignore") => ManageCgroups::Ignore,
            Some(_) => return Err(Failure::of("invalid manage-cgroups-mode value")),
        },
        network_lock: match chosen("network-lock") {
            None => None,
            Some("iptables") => Some(NetworkLock::Iptables),
            Some("nftables") => Some(NetworkLock::Nftables),
            Some("skip") => Some(NetworkLock::Skip),
            Some(_) => return Err(Failure::of("invalid network-lock value")),
        },
        empty_network: texts(own, "empty-ns").next().is_some(),
        ..CriuOptions::new(image_dir)
    })
}

fn page_server(own: &ArgMatches) -> Result<Option<(String, u16)>, Failure> {
    let Some(given) = text(own, "page-server").filter(|given| !given.is_empty()) else {
        return Ok(None);
    };
    let usage = || Failure::of("Use --page-server ADDRESS:PORT to specify page server");
    let (address, port) = given.rsplit_once(':').ok_or_else(usage)?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    if address.is_empty() || port.is_empty() {
        return Err(usage());
    }
    let port = port.parse().map_err(|_| Failure::of("Invalid port number"))?;
    Ok(Some((address.to_owned(), port)))
}

/// The descriptor that is told when lazy pages are ready.
fn status_of(own: &ArgMatches) -> Result<Option<BorrowedFd<'static>>, Failure> {
    let given = text(own, "status-fd").unwrap_or("-1");
    let invalid = |why: &str| Failure::of(format!("invalid --status-fd argument {given}: {why}"));
    let raw: RawFd = given.parse().map_err(|_| invalid("not a number"))?;
    if raw < 0 {
        return Ok(None);
    }
    // SAFETY: integers.
    let flags = unsafe { libc::fcntl(raw, libc::F_GETFL) };
    if flags < 0 {
        return Err(invalid("not open"));
    }
    if flags & libc::O_ACCMODE == libc::O_RDONLY {
        return Err(invalid("not writable"));
    }
    // SAFETY: it is open, and nothing in this program closes it.
    Ok(Some(unsafe { BorrowedFd::borrow_raw(raw) }))
}
