//! Record files: whatever stands in one, its reader tells it or passes it over, and what it gives can be asked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wayside::service::catalog::Catalog;
use wayside::telemetry::recording::entry::Entry;
use wayside::telemetry::recording::frame::{Kind, Packer};
use wayside::telemetry::recording::reader::{Frame, Reader};

fuzz_target!(|bytes: &[u8]| {
    // As a file, as what one frame holds whose checksum is right, and as one entry.
    read(bytes);
    let mut packer = Packer::new().unwrap();
    for kind in [Kind::Opening, Kind::Revision, Kind::Versions, Kind::Entries, Kind::Lost] {
        let mut frame = Vec::new();
        assert!(packer.pack(kind, bytes, 3, 0, &mut frame).unwrap());
        assert!(read(&frame) <= 1);
    }
    if let Ok(entry) = Entry::read(bytes) {
        let _ = entry.head.head();
        // Numbers can be written in more than one way, and are read as the same.
        let written = entry.bytes();
        let again = Entry::read(&written).unwrap();
        assert_eq!(again.bytes(), written);
    }
});

/// Gives how many frames there are.
fn read(bytes: &[u8]) -> usize {
    let mut reader = Reader::new(bytes);
    let mut frames = 0;
    while let Ok(Some(frame)) = reader.frame() {
        frames += 1;
        match frame {
            Frame::Revision(revision) => {
                let _ = revision.catalog(&Catalog::default());
            }
            Frame::Entries(entries) => {
                assert!(entries.iter().count() <= entries.count as usize);
                entries.iter().for_each(|(_, entry)| drop(entry.head.head()));
            }
            _ => {}
        }
    }
    assert!(reader.passed_over <= bytes.len() as u64 && reader.position <= bytes.len() as u64);
    frames
}
