//! An open input, and how to read it without stopping for ever.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::follow::{AtEnd, Followed};
use crate::config::Input;
use crate::exit::{Exit, Failure, cause};
use crate::stdio;

/// An input that is being read.
#[derive(Debug)]
pub struct Open {
    file: File,
    access: Access,
    /// A named pipe that nobody has opened for writing yet reads as ended; its first event says that somebody has.
    pub wait_first: bool,
    /// A regular file that is read on past its end.
    followed: Option<Followed>,
    is_named_pipe: bool,
}

/// How to read so that a signal is not kept waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// A file: reading takes no longer than the disk does. Never mapped: a mapping dies when the file is truncated.
    Plain,
    /// Our own description of a pipe or terminal, made non-blocking; the inherited one keeps its flags.
    NonBlocking,
    /// A socket: non-blocking for each call.
    Socket,
    /// A descriptor that could not be opened again: it is asked before each read.
    Asked,
}

impl Open {
    pub fn new(input: &Input, registry: &Registry, token: Token) -> Result<Self, Failure> {
        let mut open = match input {
            Input::Stdin => Self::stdin()?,
            Input::File(path) => Self::path(path)?,
        };
        if open.access != Access::Plain {
            let descriptor = open.file.as_raw_fd();
            match registry.register(&mut SourceFd(&descriptor), token, Interest::READABLE) {
                Ok(()) => {}
                // What cannot be waited for, like /dev/zero, is always ready.
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    open = Self { access: Access::Plain, wait_first: false, ..open };
                }
                Err(error) => return Err(Failure::new(Exit::Io, "input", format!("{input}: {}", cause(&error)))),
            }
        }
        Ok(open)
    }

    /// The next file of the same name.
    pub fn successor(&mut self) -> Option<File> {
        self.followed.as_mut().and_then(Followed::take_successor)
    }

    fn stdin() -> Result<Self, Failure> {
        if stdio::stdin_was_closed() {
            return Err(Failure::new(Exit::NoInput, "input", "standard input is closed: name a file, or connect it"));
        }
        let refused =
            |error: io::Error| Failure::new(Exit::NoInput, "input", format!("standard input: {}", cause(&error)));
        let inherited = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(refused)?);
        let kind = inherited.metadata().map_err(refused)?.file_type();
        if kind.is_dir() {
            return Err(refused(ErrorKind::IsADirectory.into()));
        }
        if kind.is_file() || kind.is_block_device() {
            return Ok(Self::plain(inherited));
        }
        if kind.is_socket() {
            return Ok(Self::with(inherited, Access::Socket));
        }
        Ok(match open_non_blocking(Path::new("/proc/self/fd/0")) {
            Ok(file) => Self::non_blocking(file, false),
            Err(_) => Self::with(inherited, Access::Asked),
        })
    }

    fn path(path: &Path) -> Result<Self, Failure> {
        let kind = check(path)?;
        let file = if kind.is_file() || kind.is_block_device() { File::open(path) } else { open_non_blocking(path) };
        let file = file.map_err(|error| refused(path, &error))?;
        Ok(match kind.is_file() || kind.is_block_device() {
            true => Self::plain(file),
            false => Self::non_blocking(file, kind.is_fifo()),
        })
    }

    /// A regular file.
    pub fn plain(file: File) -> Self {
        advise_sequential(&file);
        Self::with(file, Access::Plain)
    }

    fn non_blocking(file: File, is_named_pipe: bool) -> Self {
        enlarge_pipe(&file);
        Self { wait_first: is_named_pipe, is_named_pipe, ..Self::with(file, Access::NonBlocking) }
    }

    fn with(file: File, access: Access) -> Self {
        Self { file, access, wait_first: false, followed: None, is_named_pipe: false }
    }

    /// A regular file is read on from where it stands, and its end is not the end of the input.
    pub fn follow(&mut self, input: &Input) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::new(Exit::Io, "input", format!("{input}: {}", cause(&error)));
        if self.file.metadata().map_err(failed)?.is_file() {
            let path = match input {
                Input::Stdin => None,
                Input::File(path) => Some(path.as_path()),
            };
            let read = self.file.stream_position().map_err(failed)?;
            self.followed = Some(Followed::new(&self.file, path, read).map_err(failed)?);
        }
        Ok(())
    }

    /// Whether a read may answer [`ErrorKind::WouldBlock`].
    pub fn may_block(&self) -> bool {
        self.access != Access::Plain
    }

    /// Reads what is there. A followed file that was written anew has nothing more until it is started over.
    pub fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if self.followed.as_ref().is_some_and(Followed::is_anew) {
            return Ok(0);
        }
        let count = match self.access {
            Access::Plain | Access::NonBlocking => self.file.read(room),
            Access::Socket => receive(self.file.as_raw_fd(), room),
            Access::Asked if !is_readable(self.file.as_raw_fd())? => Err(ErrorKind::WouldBlock.into()),
            Access::Asked => self.file.read(room),
        }?;
        match &mut self.followed {
            Some(followed) => followed.read(&self.file, &room[..count]),
            None => Ok(count),
        }
    }

    /// Has the file read from `offset` on.
    pub fn seek(&mut self, offset: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(offset)).map(|_| ())
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// What is behind the end, when this is a file that is followed.
    pub fn at_end(&mut self) -> io::Result<Option<AtEnd>> {
        self.followed.as_mut().map(|followed| followed.at_end(&self.file)).transpose()
    }

    /// Starts a followed file over.
    pub fn rewind(&mut self) -> io::Result<()> {
        self.followed.as_mut().map_or(Ok(()), |followed| followed.rewind(&mut self.file))
    }

    /// Whether another may come to write when all who did have left.
    pub fn is_named_pipe(&self) -> bool {
        self.is_named_pipe
    }

    /// Ends the registration that [`Open::new`] made.
    pub fn close(self, registry: &Registry) {
        if self.may_block() {
            // Closing the descriptor would do as well, unless somebody else has it open too.
            let _ = registry.deregister(&mut SourceFd(&self.file.as_raw_fd()));
        }
    }
}

/// [`check`] of what may come later when it is followed.
pub fn check_before(path: &Path, follow: bool) -> Result<(), Failure> {
    match fs::metadata(path) {
        Err(error) if follow && error.kind() == ErrorKind::NotFound => Ok(()),
        _ => check(path).map(|_| ()),
    }
}

/// Says what `path` is, when it is there, is no directory, and, if a regular file, can be read.
pub fn check(path: &Path) -> Result<fs::FileType, Failure> {
    let about = fs::metadata(path).map_err(|error| refused(path, &error))?;
    if about.is_dir() {
        return Err(refused(path, &ErrorKind::IsADirectory.into()));
    }
    if about.is_file() {
        File::open(path).map_err(|error| refused(path, &error))?;
    }
    Ok(about.file_type())
}

fn refused(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::NoInput, "input", format!("cannot read {}: {}", path.display(), cause(error)))
}

fn open_non_blocking(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

fn receive(socket: RawFd, room: &mut [u8]) -> io::Result<usize> {
    // SAFETY: `room` is valid for writes of its length and exclusively borrowed for the duration of the call.
    let count = unsafe { libc::recv(socket, room.as_mut_ptr().cast(), room.len(), libc::MSG_DONTWAIT) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

fn is_readable(descriptor: RawFd) -> io::Result<bool> {
    let mut wanted = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
    // SAFETY: `wanted` is one valid, exclusively borrowed pollfd for the duration of the call.
    match unsafe { libc::poll(&raw mut wanted, 1, 0) } {
        -1 => Err(io::Error::last_os_error()),
        ready => Ok(ready > 0),
    }
}

#[cfg(target_os = "linux")]
fn advise_sequential(file: &File) {
    // SAFETY: the descriptor is open for the duration of the call, which takes plain numbers.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_SEQUENTIAL) };
}

#[cfg(not(target_os = "linux"))]
fn advise_sequential(_file: &File) {}

/// Asks for a pipe of 1 MiB: fewer, longer reads. A refusal changes nothing.
#[cfg(target_os = "linux")]
fn enlarge_pipe(file: &File) {
    // SAFETY: the descriptor is open for the duration of the call, which takes plain numbers.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETPIPE_SZ, 1 << 20) };
}

#[cfg(not(target_os = "linux"))]
fn enlarge_pipe(_file: &File) {}
