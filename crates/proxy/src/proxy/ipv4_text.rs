//! IPv4 addresses as text, for each connection and each line of the access log: the formatter of the standard library
//! takes several times as long.

use std::net::Ipv4Addr;

pub(in crate::proxy) struct Ipv4Text {
    bytes: [u8; Ipv4Text::MAX_LENGTH],
    length: usize,
}

impl Ipv4Text {
    const MAX_LENGTH: usize = "255.255.255.255".len();

    pub(in crate::proxy) fn new(ip: Ipv4Addr) -> Self {
        let (mut bytes, mut length) = ([0; Ipv4Text::MAX_LENGTH], 0);
        for (index, octet) in ip.octets().into_iter().enumerate() {
            if index > 0 {
                bytes[length] = b'.';
                length += 1;
            }
            let (digits, count) = OCTETS[usize::from(octet)];
            bytes[length..length + 3].copy_from_slice(&digits);
            length += usize::from(count);
        }
        Ipv4Text { bytes, length }
    }

    pub(in crate::proxy) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// The digits of each octet, and their number.
static OCTETS: [([u8; 3], u8); 256] = {
    let mut octets = [([0; 3], 1); 256];
    let mut octet = 0;
    while octet < octets.len() {
        let [hundreds, tens, ones] = [octet / 100, octet / 10 % 10, octet % 10];
        let [hundreds, tens, ones] = [b'0' + hundreds as u8, b'0' + tens as u8, b'0' + ones as u8];
        octets[octet] = match octet {
            0..10 => ([ones, 0, 0], 1),
            10..100 => ([tens, ones, 0], 2),
            _ => ([hundreds, tens, ones], 3),
        };
        octet += 1;
    }
    octets
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_octet_is_written_in_every_place() {
        for octet in 0..=u8::MAX {
            for octets in [[octet, 1, 22, 255], [255, octet, 1, 22], [22, 255, octet, 1], [1, 22, 255, octet]] {
                let ip = Ipv4Addr::from(octets);
                assert_eq!(Ipv4Text::new(ip).as_bytes(), ip.to_string().as_bytes());
            }
        }
    }
}
