//! The handler of SIGBUS. All that it calls is safe in a signal handler: atomics, `mmap`, `sigaction`, `raise`.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use libc::{c_int, c_void, sigaction, siginfo_t};

use super::TABLE;

/// Takes SIGBUS over, once.
pub(super) fn install() -> io::Result<()> {
    let mut is_installed = IS_INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if *is_installed {
        return Ok(());
    }
    // Before the handler is there: it may be called at once.
    PAGE_BYTES.store(page_bytes()?, Ordering::Relaxed);
    let previous = change(None)?;
    PREVIOUS_FLAGS.store(previous.sa_flags, Ordering::Relaxed);
    PREVIOUS.store(previous.sa_sigaction, Ordering::Relaxed);
    // On the stack for signals, where there is one: the fault may be one of a stack that has overflown. SIGBUS stays
    // blocked meanwhile, so that a fault inside ends the process instead of coming back for ever.
    change(Some(&action(on_sigbus as *const () as usize, libc::SA_SIGINFO | libc::SA_ONSTACK)))?;
    *is_installed = true;
    Ok(())
}

extern "C" fn on_sigbus(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the place of this thread's `errno` is always there. The interrupted code may be about to read it.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *errno };
    if !replace_page(info) {
        pass_on(signal, info, context);
    }
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// Puts memory where a page of a registered mapping was; false when the signal is about something else.
fn replace_page(info: *const siginfo_t) -> bool {
    // SAFETY: the kernel passes a valid structure to a handler that was installed with SA_SIGINFO. The address is only
    // a number here, and one at all when the code is of a fault.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // An address that is not aligned stays so on another page.
    if code <= libc::BUS_ADRALN {
        return false;
    }
    let Some(slot) = TABLE.find(address) else { return false };
    let bytes = PAGE_BYTES.load(Ordering::Relaxed);
    let page = ptr::without_provenance_mut::<c_void>(address - address % bytes);
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: the page lies in a mapping of this process that the interrupted thread stores to, and so keeps mapped and
    // registered (invariant 1 of the table). Nothing else stands on that page: mappings are whole pages. Who unmaps
    // the range later unmaps this page with it.
    let mapped = unsafe { libc::mmap(page, bytes, protection, flags | libc::MAP_FIXED, -1, 0) };
    // Struck also when there was no memory for the page, and the signal goes on.
    slot.is_struck.store(true, Ordering::Relaxed);
    mapped != libc::MAP_FAILED
}

/// Does what would have been done without this handler.
fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let previous = PREVIOUS.load(Ordering::Relaxed);
    // SAFETY: as in `replace_page`.
    let is_fault = unsafe { (*info).si_code } > 0;
    match previous {
        libc::SIG_IGN if !is_fault => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            // The access is repeated on return, and ends the process. What somebody sent is not, so it is sent again.
            if change(Some(&action(libc::SIG_DFL, 0))).is_ok() && !is_fault {
                // SAFETY: no memory is passed. The signal is blocked here, and delivered on return.
                unsafe { libc::raise(signal) };
            }
        }
        _ if PREVIOUS_FLAGS.load(Ordering::Relaxed) & libc::SA_SIGINFO != 0 => {
            // SAFETY: `sigaction` gave this address as that of a handler with these parameters.
            let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = unsafe { std::mem::transmute(previous) };
            handler(signal, info, context);
        }
        _ => {
            // SAFETY: as above, with this one parameter.
            let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(previous) };
            handler(signal);
        }
    }
}

/// Sets the action for SIGBUS, or only asks for it; returns the one before.
fn change(new: Option<&sigaction>) -> io::Result<sigaction> {
    let mut old = MaybeUninit::<sigaction>::uninit();
    // SAFETY: `new` is null or a whole structure, and `old` is a place for one.
    if unsafe { libc::sigaction(libc::SIGBUS, new.map_or(ptr::null(), ptr::from_ref), old.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it has filled the structure.
    Ok(unsafe { old.assume_init() })
}

fn action(handler: usize, flags: c_int) -> sigaction {
    // SAFETY: zeros are a valid value of the structure: numbers, an empty set of signals, and no restorer.
    let mut action: sigaction = unsafe { std::mem::zeroed() };
    (action.sa_sigaction, action.sa_flags) = (handler, flags);
    action
}

fn page_bytes() -> io::Result<usize> {
    // SAFETY: no memory is passed.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).map_err(|_| io::Error::last_os_error())
}

static IS_INSTALLED: Mutex<bool> = Mutex::new(false);
// Written once, before the handler is installed, and read by it alone: the system call orders them.
static PREVIOUS: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);
static PREVIOUS_FLAGS: AtomicI32 = AtomicI32::new(0);
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(0);
