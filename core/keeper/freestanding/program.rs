//! Finding the program, giving it its descriptors, and becoming it.

use core::ffi::CStr;

use locule_plan::List;
use locule_plan::protocol::detail;

use crate::abi::*;
use crate::child::Child;
use crate::failure::{Error, Result};
use crate::system::{self, Block, Errno, Sys};
use crate::text::{PATH_MAX, PathBuffer, parse_number};

/// How many times 2048 bytes of a passwd file are looked through: 16 MiB.
const PASSWD_READS: u32 = 8192;

/// Where the program is, once it has been found.
pub type Found = PathBuffer<PATH_MAX>;

/// Looks `name` up as `execvp` does.
pub fn find(name: &CStr, search: &CStr, found: &mut Found) -> Result {
    let text = name.to_bytes();
    let fail = |detail, errno| Err(Error::new(detail, errno).about(text));
    if text.is_empty() {
        return fail(detail::NOT_IN_PATH, Errno::ENOENT);
    }
    if text.contains(&b'/') {
        found.clear();
        found.push(text)?;
        return match executable(found.as_cstr()) {
            Ok(()) => Ok(()),
            Err(errno) => fail(detail::PLAIN, errno),
        };
    }
    let mut refused = None;
    for folder in search.to_bytes().split(|&byte| byte == b':') {
        found.clear();
        let folder = if folder.is_empty() { b"." } else { folder };
        if found
            .push(folder)
            .and_then(|()| found.push(b"/"))
            .and_then(|()| found.push(text))
            .is_err()
        {
            continue;
        }
        match executable(found.as_cstr()) {
            Ok(()) => return Ok(()),
            Err(errno @ (Errno::EACCES | Errno::EISDIR)) => refused = refused.or(Some(errno)),
            Err(_) => {}
        }
    }
    found.clear();
    match refused {
        Some(Errno::EACCES) => fail(detail::PLAIN, Errno::EACCES),
        _ => fail(detail::NOT_IN_PATH, Errno::ENOENT),
    }
}

/// Whether a file could be a program.
pub fn executable(path: &CStr) -> Sys {
    match system::statx(AT_FDCWD, path, 0)?.kind() {
        S_IFREG => system::faccessat(AT_FDCWD, path, X_OK),
        S_IFDIR => Err(Errno::EISDIR),
        // A socket, one of ours say, has the permission, too.
        _ => Err(Errno::EACCES),
    }
}

/// Executes the program. Returns only if that fails.
pub fn execute(child: &mut Child, args: List<'_>, env: List<'_>) -> Result {
    let first = args.iter().next().ok_or(Error::new(detail::PLAIN, Errno::EINVAL))?;
    let mut home = PathBuffer::<PATH_MAX>::new();
    let has_home = env.iter().any(|entry| {
        let entry = entry.to_bytes();
        entry.starts_with(b"HOME=") && entry.len() > 5
    });
    let envp = environment(env, !has_home, &mut home)?;
    let mut argv = system::allocate::<*const u8>(args.len() + 1)?;
    for (place, text) in argv.iter_mut().zip(args.iter()) {
        *place = text.as_ptr().cast();
    }
    child.seal()?;
    let path = if child.program.as_bytes().is_empty() { first } else { child.program.as_cstr() };
    let errno = system::execve(path, argv.as_ptr(), envp.as_ptr());
    Err(Error::from(errno).about(path.to_bytes()))
}

/// An environment as `execve` takes it; if asked for, with the home directory of this user in place
/// of any other. That is kept in `home`.
pub fn environment(
    env: List<'_>,
    add_home: bool,
    home: &mut PathBuffer<PATH_MAX>,
) -> Result<Block<*const u8>> {
    let mut pointers = system::allocate::<*const u8>(env.len() + 2)?;
    let kept = env.iter().filter(|entry| !add_home || !entry.to_bytes().starts_with(b"HOME="));
    let mut last = 0;
    for (place, text) in pointers.iter_mut().zip(kept) {
        *place = text.as_ptr().cast();
        last += 1;
    }
    if add_home {
        home.push(b"HOME=")?;
        home_directory(home)?;
        pointers[last] = home.as_cstr().as_ptr().cast();
    }
    Ok(pointers)
}

/// Appends the home directory of this user, by the container's passwd file.
fn home_directory(out: &mut PathBuffer<PATH_MAX>) -> Sys {
    let uid = system::geteuid();
    let before = out.as_bytes().len();
    // Not blocking: what an image has there may be a FIFO.
    let file = system::openat(AT_FDCWD, c"/etc/passwd", O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if let Ok(file) = file
        && system::stat(file.raw()).is_ok_and(|stat| stat.kind() == S_IFREG)
    {
        let mut buffer = [0u8; 2048];
        let mut line = PathBuffer::<PATH_MAX>::new();
        let mut whole = true;
        // An image can have a file without an end: a sparse one.
        'file: for _ in 0..PASSWD_READS {
            let Ok(len @ 1..) = system::read(file.raw(), &mut buffer) else { break };
            for &byte in &buffer[..len] {
                if byte != b'\n' {
                    // A line longer than any path is not one we could use.
                    whole = byte != 0 && line.push(&[byte]).is_ok() && whole;
                    continue;
                }
                if whole && take_home(line.as_bytes(), uid, out)? {
                    break 'file;
                }
                line.clear();
                whole = true;
            }
        }
        if whole && out.as_bytes().len() == before {
            take_home(line.as_bytes(), uid, out)?;
        }
    }
    if out.as_bytes().len() == before { out.push(b"/") } else { Ok(()) }
}

/// `name:password:uid:gid:comment:home:shell`
fn take_home(line: &[u8], uid: u32, out: &mut PathBuffer<PATH_MAX>) -> Sys<bool> {
    let mut fields = line.split(|&byte| byte == b':').skip(2);
    if fields.next().and_then(parse_number) != Some(uid) {
        return Ok(false);
    }
    match fields.nth(2) {
        Some(home) if !home.is_empty() => out.push(home).map(|()| true),
        _ => Ok(true),
    }
}
