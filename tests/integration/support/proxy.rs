//! Stands between the exporter and its server: counts what the server sends, breaks connections at a
//! chosen byte of it, changes what the exporter says, and answers with errors in the server's place.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::exporter::ENDS_WITHIN;
use rustix::net::sockopt::set_socket_linger;

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Break {
    /// The client reads an end.
    Close,
    /// The client reads `ECONNRESET`.
    Reset,
    /// It stays open, and nothing comes any more.
    Stall,
}

/// When connections break: after so many bytes from the server.
#[derive(Clone, Copy)]
enum Plan {
    /// Once, counted over all connections.
    Once(u64, Break),
    /// Every connection, each counted by itself.
    Each(u64, Break),
}

/// The next statement with these words is answered with an error.
struct Refusal {
    words: &'static str,
    code: u16,
}

/// A statement that is held back: the one with these words, or a later execution.
struct Hold {
    words: &'static str,
    /// Executions that pass after these words; None: the words are still to come.
    passing: Option<u32>,
    executions: u32,
    reached: Sender<()>,
    opened: Receiver<()>,
}

/// Opens when it is dropped.
pub(crate) struct Gate {
    reached: Receiver<()>,
    _open: Sender<()>,
}

impl Gate {
    /// Waits until the statement has come.
    pub(crate) fn wait(&self) {
        self.reached.recv_timeout(ENDS_WITHIN).expect("the statement comes");
    }
}

pub(crate) struct Proxy {
    port: u16,
    url: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// `127.0.0.1:3306`
    target: Mutex<String>,
    plan: Mutex<Option<Plan>>,
    /// What the exporter says, and what is passed on instead.
    changes: Mutex<Vec<(&'static str, &'static str)>>,
    refusal: Mutex<Option<Refusal>>,
    hold: Mutex<Option<Hold>>,
    /// Bytes that servers sent.
    sent: AtomicU64,
    broken: AtomicU64,
}

impl Proxy {
    /// Connections go to the server of this URL.
    pub(crate) fn to(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let proxy = Self { port, url: url.to_owned(), shared: Arc::default() };
        proxy.aim(url);
        let shared = Arc::clone(&proxy.shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A client of a server that is not there finds the connection closed.
                let target = shared.target.lock().expect("nobody panics with it").clone();
                if let Ok(server) = TcpStream::connect(target) {
                    let line = Arc::new(Line { client, server, broken: AtomicBool::new(false) });
                    let (shared, there, back) = (Arc::clone(&shared), Arc::clone(&line), line);
                    let asking = Arc::clone(&shared);
                    thread::spawn(move || there.pass_questions(&asking));
                    thread::spawn(move || back.pass_answers(&shared));
                }
            }
        });
        proxy
    }

    /// New connections go to the server of this URL.
    pub(crate) fn aim(&self, url: &str) {
        *self.shared.target.lock().expect("nobody panics with it") = place(url).to_owned();
    }

    /// The first URL, by way of here.
    pub(crate) fn url(&self) -> String {
        self.url.replace(place(&self.url), &format!("127.0.0.1:{}", self.port))
    }

    /// How many bytes came from servers.
    pub(crate) fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }

    /// How many connections were broken.
    pub(crate) fn broken(&self) -> u64 {
        self.shared.broken.load(Ordering::SeqCst)
    }

    /// Breaks one connection, after this many bytes that servers send from now on.
    pub(crate) fn break_once(&self, after: u64, how: Break) {
        let mut plan = self.shared.plan.lock().expect("nobody panics with it");
        self.shared.sent.store(0, Ordering::SeqCst);
        *plan = Some(Plan::Once(after, how));
    }

    /// Breaks every connection after this many bytes that its server sends.
    pub(crate) fn break_each(&self, after: u64, how: Break) {
        *self.shared.plan.lock().expect("nobody panics with it") = Some(Plan::Each(after, how));
    }

    pub(crate) fn break_no_more(&self) {
        *self.shared.plan.lock().expect("nobody panics with it") = None;
    }

    /// Answers the next statement with these words with this error, which the server never hears of.
    pub(crate) fn refuse(&self, words: &'static str, code: u16) {
        *self.shared.refusal.lock().expect("nobody panics with it") = Some(Refusal { words, code });
    }

    /// Holds back the next statement that is prepared with these words, or, after so many executions, the next one,
    /// until the gate is dropped.
    pub(crate) fn hold(&self, words: &'static str, executions: u32) -> Gate {
        let ((here, reached), (open, opened)) = (mpsc::channel(), mpsc::channel());
        let hold = Hold { words, passing: None, executions, reached: here, opened };
        *self.shared.hold.lock().expect("nobody panics with it") = Some(hold);
        Gate { reached, _open: open }
    }

    /// Passes on other words, of the same length, than the exporter's.
    pub(crate) fn change(&self, changes: &[(&'static str, &'static str)]) {
        assert!(changes.iter().all(|(from, to)| from.len() == to.len()));
        *self.shared.changes.lock().expect("nobody panics with it") = changes.to_vec();
    }
}

/// `127.0.0.1:3306` of a URL.
fn place(url: &str) -> &str {
    url.rsplit_once('@').and_then(|(_, place)| place.split('/').next()).expect("a URL names a user and a host")
}

/// One connection. The last of its two threads to end closes it.
struct Line {
    client: TcpStream,
    server: TcpStream,
    broken: AtomicBool,
}

impl Line {
    fn pass_questions(&self, shared: &Shared) {
        let mut buffer = [0; 65_536];
        while let Ok(length @ 1..) = (&self.client).read(&mut buffer) {
            shared.hold(&buffer[..length]);
            for (from, to) in &*shared.changes.lock().expect("nobody panics with it") {
                replace(&mut buffer[..length], from.as_bytes(), to.as_bytes());
            }
            let passed = match shared.refuse(&buffer[..length]) {
                Some(error) => (&self.client).write_all(&error),
                None => (&self.server).write_all(&buffer[..length]),
            };
            if passed.is_err() {
                break;
            }
        }
        self.end();
    }

    fn pass_answers(&self, shared: &Shared) {
        let mut buffer = [0; 65_536];
        let mut own = 0;
        while let Ok(length @ 1..) = (&self.server).read(&mut buffer) {
            let (passed, broken) = shared.admit(&mut own, length);
            if (&self.client).write_all(&buffer[..passed]).is_err() {
                break;
            }
            if let Some(how) = broken {
                return self.tear(how);
            }
        }
        self.end();
    }

    fn tear(&self, how: Break) {
        match how {
            Break::Close => self.end(),
            Break::Reset => {
                self.broken.store(true, Ordering::SeqCst);
                // Closed like this it sends RST and no FIN.
                set_socket_linger(&self.client, Some(Duration::ZERO)).expect("set SO_LINGER");
                let _ = self.client.shutdown(Shutdown::Read);
                let _ = self.server.shutdown(Shutdown::Both);
            }
            // The other thread ends it when the client has had enough.
            Break::Stall => {}
        }
    }

    fn end(&self) {
        if !self.broken.load(Ordering::SeqCst) {
            let _ = self.client.shutdown(Shutdown::Both);
            let _ = self.server.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    /// Returns when this question may pass.
    fn hold(&self, question: &[u8]) {
        const PREPARE: u8 = 0x16;
        const EXECUTE: u8 = 0x17;
        let mut held = self.hold.lock().expect("nobody panics with it");
        let Some(hold) = held.as_mut() else { return };
        let words = hold.words.as_bytes();
        hold.passing = match (question, hold.passing) {
            ([_, _, _, 0, PREPARE, ..], None) if question.windows(words.len()).any(|window| window == words) => {
                Some(hold.executions)
            }
            ([_, _, _, 0, EXECUTE, ..], Some(passing)) => Some(passing.saturating_sub(1)),
            (_, passing) => passing,
        };
        if hold.passing == Some(0)
            && let Some(hold) = held.take()
        {
            drop(held);
            let _ = hold.reached.send(());
            // An error is the gate that opens.
            let _ = hold.opened.recv();
        }
    }

    /// The packet that answers this question, unless the server is to answer it.
    fn refuse(&self, question: &[u8]) -> Option<Vec<u8>> {
        const QUERY: u8 = 0x03;
        const PREPARE: u8 = 0x16;
        let mut refusal = self.refusal.lock().expect("nobody panics with it");
        let words = refusal.as_ref()?.words.as_bytes();
        let is_statement = matches!(question, [_, _, _, 0, QUERY | PREPARE, ..]);
        if !is_statement || !question.windows(words.len()).any(|window| window == words) {
            return None;
        }
        let Refusal { code, .. } = refusal.take()?;
        let mut payload = vec![0xff];
        payload.extend(code.to_le_bytes());
        payload.extend(b"#HY000an error of the test's own");
        let length = u8::try_from(payload.len()).expect("it is short");
        Some([vec![length, 0, 0, 1], payload].concat())
    }

    /// How many of these bytes pass, and what becomes of the connection after them.
    fn admit(&self, own: &mut u64, length: usize) -> (usize, Option<Break>) {
        let mut plan = self.plan.lock().expect("nobody panics with it");
        let (before, limit) = match *plan {
            None => (0, None),
            Some(Plan::Once(after, how)) => (self.sent.load(Ordering::SeqCst), Some((after, how))),
            Some(Plan::Each(after, how)) => (*own, Some((after, how))),
        };
        let left = limit.map_or(u64::MAX, |(after, _)| after.saturating_sub(before));
        let passed = length.min(usize::try_from(left).unwrap_or(usize::MAX));
        *own += passed as u64;
        self.sent.fetch_add(passed as u64, Ordering::SeqCst);
        let broken = limit.filter(|_| passed < length).map(|(_, how)| how);
        if broken.is_some() {
            self.broken.fetch_add(1, Ordering::SeqCst);
        }
        if broken.is_some() && matches!(*plan, Some(Plan::Once(..))) {
            *plan = None;
        }
        (passed, broken)
    }
}

fn replace(buffer: &mut [u8], from: &[u8], to: &[u8]) {
    let mut at = 0;
    while let Some(found) = buffer[at..].windows(from.len()).position(|window| window == from) {
        buffer[at + found..at + found + to.len()].copy_from_slice(to);
        at += found + to.len();
    }
}
