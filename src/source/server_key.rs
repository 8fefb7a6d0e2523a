//! Owns the check of the RSA key that encrypts a password on an unencrypted connection: `public_key.pem` in the server's
//! data folder. The driver reads the file when the server asks for the password, and panics if the file holds no such
//! key. So the file is checked before.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Bytes. No file of such a key is longer.
const LONGEST: u64 = 65_536;
/// Bytes that the padding takes of a key's length (OAEP with SHA-1, RFC 8017 section 7.1.1), and the zero byte after
/// the password.
const OVERHEAD: usize = 42 + 1;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;

/// Checks that the key in the file can encrypt this password. An error is the file, with the words of the operating
/// system.
pub(super) fn check(file: &Path, password: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", file.display());
    let metadata = std::fs::metadata(file).map_err(failed)?;
    // A pipe can be read only once.
    let is_readable_twice = metadata.is_file() && metadata.len() <= LONGEST;
    let text = if is_readable_twice { std::fs::read(file).map_err(failed)? } else { Vec::new() };
    match length(&text) {
        Some(length) if password.len() + OVERHEAD <= length => Ok(()),
        _ => Err(file.display().to_string()),
    }
}

/// The length of the modulus in bytes. None if this is no RSA public key.
fn length(pem: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(pem).ok()?;
    let bytes = |kind: &str| {
        let (_, rest) = text.split_once(&format!("-----BEGIN {kind}-----"))?;
        let (body, _) = rest.split_once(&format!("-----END {kind}-----"))?;
        let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        STANDARD.decode(body).ok()
    };
    let key = match bytes("RSA PUBLIC KEY") {
        Some(key) => key,
        None => {
            let info = bytes("PUBLIC KEY")?;
            let (info, _) = element(&info, SEQUENCE)?;
            let (_algorithm, rest) = element(info, SEQUENCE)?;
            let (key, _) = element(rest, BIT_STRING)?;
            // The first byte counts the bits that the last one lacks.
            key.strip_prefix(&[0])?.to_vec()
        }
    };
    let (key, _) = element(&key, SEQUENCE)?;
    let (modulus, rest) = element(key, INTEGER)?;
    let (exponent, _) = element(rest, INTEGER)?;
    let modulus = modulus.strip_prefix(&[0]).unwrap_or(modulus);
    // Without its first bit a modulus would be shorter than its bytes.
    (modulus.first()? & 0x80 != 0 && !exponent.is_empty()).then_some(modulus.len())
}

/// The content of the DER element with this tag, and the rest after it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let rest = der.strip_prefix(&[tag])?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        // Two bytes of length are enough for a file of this size.
        0x81 | 0x82 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of 512 bits, made by `openssl genrsa 512 | openssl rsa -pubout`; its other half was thrown away.
    const KEY: &str = "-----BEGIN PUBLIC KEY-----
MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKurGvRyp2wwdBK4es98t+NtsRZ5Zn8F
wVD4ZKAH7XCkurIw6so2KnksOwmr/a/SxeopHvf7124ZNwN2WmEU2KUCAwEAAQ==
-----END PUBLIC KEY-----
";
    /// The same without the name of its algorithm.
    const RSA_KEY: &str = "-----BEGIN RSA PUBLIC KEY-----
MEgCQQCrqxr0cqdsMHQSuHrPfLfjbbEWeWZ/BcFQ+GSgB+1wpLqyMOrKNip5LDsJ
q/2v0sXqKR73+9duGTcDdlphFNilAgMBAAE=
-----END RSA PUBLIC KEY-----
";
    /// Of an elliptic curve.
    const OTHER_KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAETOLoY5eKSGenXJt9O65YqUNywqp7
yneOdWFRlpEhGjxGRQLbzX0LUE3jp8FmQ7i3H5az7q6R3lqFTrfr7wW6FA==
-----END PUBLIC KEY-----
";

    #[test]
    fn a_key_in_either_form_has_its_length() {
        assert_eq!(length(KEY.as_bytes()), Some(64));
        assert_eq!(length(format!("first\r\n{}", RSA_KEY.replace('\n', "\r\n")).as_bytes()), Some(64));
    }

    #[test]
    fn what_is_no_rsa_key_or_is_cut_off_has_no_length() {
        assert_eq!(length(OTHER_KEY.as_bytes()), None);
        assert_eq!(length(b""), None);
        for key in [KEY, RSA_KEY] {
            for at in 0..key.len() - 1 {
                assert_eq!(length(&key.as_bytes()[..at]), None, "cut at {at}");
                let mut spoiled = key.as_bytes().to_vec();
                for other in [b'A', b'/', b'-', 0xff] {
                    spoiled[at] = other;
                    // Some of these are keys, if of no server.
                    if let Some(length) = length(&spoiled) {
                        assert!((60..=66).contains(&length), "{at} to {other}: {length}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_key_that_is_too_short_for_the_password_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), KEY).unwrap();
        assert_eq!(check(file.path(), &"p".repeat(21)), Ok(()));
        assert_eq!(check(file.path(), &"p".repeat(22)), Err(file.path().display().to_string()));
        assert!(check(std::path::Path::new("/none"), "p").unwrap_err().starts_with("/none: "));
        assert_eq!(check(std::path::Path::new("/dev/zero"), "p"), Err("/dev/zero".to_owned()));
    }
}
