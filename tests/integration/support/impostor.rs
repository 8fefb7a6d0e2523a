//! A server that is none: it took the port of one, and wants a client's password. It keeps all that the
//! client says.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Protocol 4.1, a database, transactions, plugins for logging in; no TLS.
const CAPABILITIES: u32 = 0x0008_a209;
/// What the client proves with that it knows the password.
const NONCE: [u8; 20] = *b"abcdefghijklmnopqrst";

pub(crate) struct Impostor {
    port: u16,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// The packet that asks for another login.
pub(crate) fn switch_to(plugin: &str) -> Vec<u8> {
    [&[0xfe], plugin.as_bytes(), &[0], &NONCE, &[0]].concat()
}

impl Impostor {
    /// Answers each login with these packets, one for each packet of the client, and a request for its key
    /// with this one.
    pub(crate) fn new(answers: Vec<Vec<u8>>, key: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&heard);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A client that leaves says no more.
                let _ = talk(client, &answers, &key, &keep);
            }
        });
        Self { port, heard }
    }

    pub(crate) fn url(&self) -> String {
        format!("mysql://reader@127.0.0.1:{}/invoices", self.port)
    }

    /// The packets of all clients, but for the first of each, and for `COM_QUIT`.
    pub(crate) fn heard(&self) -> Vec<Vec<u8>> {
        let heard = self.heard.lock().expect("no thread panics with it");
        heard.iter().filter(|packet| **packet != [1]).cloned().collect()
    }
}

fn talk(mut client: TcpStream, answers: &[Vec<u8>], key: &[u8], heard: &Mutex<Vec<Vec<u8>>>) -> std::io::Result<()> {
    let [low, high] = [CAPABILITIES & 0xffff, CAPABILITIES >> 16].map(|half| (half as u16).to_le_bytes());
    let greeting = [
        &b"\x0a8.4.0\0\x07\0\0\0"[..],
        &NONCE[..8],
        b"\0",
        &low,
        b"\x2d\x02\0",
        &high,
        &[21],
        &[0; 10],
        &NONCE[8..],
        b"\0caching_sha2_password\0",
    ];
    send(&mut client, 0, &greeting.concat())?;
    let (mut number, _) = receive(&mut client)?;
    for answer in answers {
        send(&mut client, number + 1, answer)?;
        let (next, mut packet) = receive(&mut client)?;
        number = next;
        heard.lock().expect("no thread panics with it").push(packet.clone());
        while packet == [2] {
            send(&mut client, number + 1, &[&[1], key].concat())?;
            (number, packet) = receive(&mut client)?;
            heard.lock().expect("no thread panics with it").push(packet.clone());
        }
    }
    send(&mut client, number + 1, b"\xff\x15\x04#28000Access denied")
}

fn send(client: &mut TcpStream, number: u8, packet: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(packet.len()).expect("a short packet").to_le_bytes();
    client.write_all(&[&length[..3], &[number], packet].concat())
}

fn receive(client: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let mut header = [0; 4];
    client.read_exact(&mut header)?;
    let [a, b, c, number] = header;
    let mut packet = vec![0; u32::from_le_bytes([a, b, c, 0]) as usize];
    client.read_exact(&mut packet)?;
    Ok((number, packet))
}
