//! Stands between the exporter and its server: counts what the server sends, breaks connections at a
//! chosen byte of it, changes what the exporter says, and answers with errors in the server's place.

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::exporter::ENDS_WITHIN;
use rustix::net::sockopt::set_socket_linger;

use super::rounds::Dice;

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

/// What becomes of a packet. Its frame stays right, its content does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoil {
    Empty,
    /// It has half of its bytes.
    Cut,
    /// It has others, drawn with this seed.
    Random(u64),
    /// Its last byte is one that no UTF-8 contains.
    NotUtf8,
}

/// The next statement with these words is answered with an error.
struct Refusal {
    words: &'static str,
    code: u16,
    at: Step,
}

/// Of a statement that is prepared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Or the statement as a whole, if it is not.
    Preparing,
    Executing,
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
    refusals: Mutex<Vec<Refusal>>,
    /// The next prepared statement that is executed is answered with this error.
    execution: Mutex<Option<u16>>,
    /// Connections are answered with this error instead of a greeting.
    no_login: Mutex<Vec<u16>>,
    /// Which packet of servers is spoiled, counted from now on, and how.
    spoil: Mutex<Option<(u64, Spoil)>>,
    packets: AtomicU64,
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
            for mut client in listener.incoming().flatten() {
                if let Some(code) = shared.no_login.lock().expect("nobody panics with it").pop() {
                    let _ = client.write_all(&error_packet(0, code, b"an error of the test's own"));
                    continue;
                }
                // A client of a server that is not there finds the connection closed.
                let target = shared.target.lock().expect("nobody panics with it").clone();
                if let Ok(server) = TcpStream::connect(target) {
                    let line = Arc::new(Line { client, server, broken: AtomicBool::new(false) });
                    let (shared, there, back) = (Arc::clone(&shared), Arc::clone(&line), line);
                    let asking = Arc::clone(&shared);
                    thread::spawn(move || there.pass_questions(&asking));
                    thread::spawn(move || {
                        let by_packet = shared.spoil.lock().expect("nobody panics with it").is_some();
                        if by_packet { back.pass_packets(&shared) } else { back.pass_answers(&shared) }
                    });
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

    /// Spoils one packet, the so-and-so-many-th of those that servers send over new connections.
    pub(crate) fn spoil(&self, nth: u64, how: Spoil) {
        self.shared.packets.store(0, Ordering::SeqCst);
        *self.shared.spoil.lock().expect("nobody panics with it") = Some((nth, how));
    }

    /// How many packets came since then.
    pub(crate) fn packets(&self) -> u64 {
        self.shared.packets.load(Ordering::SeqCst)
    }

    pub(crate) fn break_no_more(&self) {
        *self.shared.plan.lock().expect("nobody panics with it") = None;
    }

    /// Answers the next statement with these words with this error, which the server never hears of.
    pub(crate) fn refuse(&self, words: &'static str, code: u16) {
        self.refuse_each([(words, code)]);
    }

    /// The same for several statements, each once.
    pub(crate) fn refuse_each(&self, refusals: impl IntoIterator<Item = (&'static str, u16)>) {
        *self.shared.refusals.lock().expect("nobody panics with it") =
            refusals.into_iter().map(|(words, code)| Refusal { words, code, at: Step::Preparing }).collect();
    }

    /// Has the server prepare the next statement with these words, and answers its execution with this error.
    pub(crate) fn refuse_execution(&self, words: &'static str, code: u16) {
        *self.shared.refusals.lock().expect("nobody panics with it") =
            vec![Refusal { words, code, at: Step::Executing }];
    }

    /// The words of the statements that are still to be refused.
    pub(crate) fn not_yet_refused(&self) -> Vec<&'static str> {
        self.shared.refusals.lock().expect("nobody panics with it").iter().map(|refusal| refusal.words).collect()
    }

    /// Answers the next connection with this error, instead of the server's greeting.
    pub(crate) fn refuse_login(&self, code: u16) {
        self.shared.no_login.lock().expect("nobody panics with it").push(code);
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

    fn pass_packets(&self, shared: &Shared) {
        let mut server = BufReader::new(&self.server);
        let mut header = [0; 4];
        while server.read_exact(&mut header).is_ok() {
            let length = u32::from_le_bytes([header[0], header[1], header[2], 0]);
            let mut payload = vec![0; length as usize];
            if server.read_exact(&mut payload).is_err() {
                break;
            }
            let nth = shared.packets.fetch_add(1, Ordering::SeqCst);
            if let Some((_, how)) = shared.spoil.lock().expect("nobody panics with it").filter(|(at, _)| *at == nth) {
                payload = spoiled(payload, how);
            }
            let length = u32::try_from(payload.len()).expect("it came in one packet").to_le_bytes();
            let packet = [&length[..3], &header[3..], &payload].concat();
            if (&self.client).write_all(&packet).is_err() {
                break;
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
        const EXECUTE: u8 = 0x17;
        let error = |code| Some(error_packet(1, code, b"#HY000an error of the test's own"));
        if let [_, _, _, 0, EXECUTE, ..] = question {
            return self.execution.lock().expect("nobody panics with it").take().and_then(error);
        }
        let mut refusals = self.refusals.lock().expect("nobody panics with it");
        if !matches!(question, [_, _, _, 0, QUERY | PREPARE, ..]) {
            return None;
        }
        let says = |words: &str| question.windows(words.len()).any(|window| window == words.as_bytes());
        let found = refusals.iter().position(|refusal| says(refusal.words))?;
        let Refusal { code, at, .. } = refusals.remove(found);
        if at == Step::Executing {
            *self.execution.lock().expect("nobody panics with it") = Some(code);
            return None;
        }
        error(code)
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

fn spoiled(mut payload: Vec<u8>, how: Spoil) -> Vec<u8> {
    match how {
        Spoil::Empty => payload.clear(),
        Spoil::Cut => payload.truncate(payload.len() / 2),
        Spoil::Random(seed) => {
            let mut dice = Dice::new(seed);
            payload.fill_with(|| u8::try_from(dice.below(256)).expect("it is below 256"));
        }
        Spoil::NotUtf8 => payload.last_mut().into_iter().for_each(|last| *last = 0xff),
    }
    payload
}

/// The packet with this number that says so.
fn error_packet(number: u8, code: u16, text: &[u8]) -> Vec<u8> {
    let payload = [&[0xff][..], &code.to_le_bytes(), text].concat();
    let length = u8::try_from(payload.len()).expect("it is short");
    [vec![length, 0, 0, number], payload].concat()
}

fn replace(buffer: &mut [u8], from: &[u8], to: &[u8]) {
    let mut at = 0;
    while let Some(found) = buffer[at..].windows(from.len()).position(|window| window == from) {
        buffer[at + found..at + found + to.len()].copy_from_slice(to);
        at += found + to.len();
    }
}
