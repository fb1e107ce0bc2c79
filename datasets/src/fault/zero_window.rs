//! Zero window: the application reads so slowly that its receive buffer stays full, while clients upload.

use anyhow::Result;
use event::Fault;
use features::Feature;

use super::{Crowd, Dose, Injection, Recipe};
use crate::counters::Counters;
use crate::evidence::Evidence;
use crate::load;
use crate::scene::Scene;
use crate::service::Knob;

pub const RECIPE: Recipe = Recipe {
    fault: Fault::ZeroWindow,
    mechanisms: &["slow-reader"],
    optional: &[],
    // Uploads fill the buffer; what the others have to say fits into it.
    affected: &[
        "tcp/198.18.1.2:8080?zero_window_count>=1",
        "tcp/198.18.1.2:8080?zero_window_duration>=0.001",
    ],
    shows: &[(Feature::ZeroWindowCount, 1.0)],
    own_drops: &[],
    inject,
};

/// Milliseconds between two reads of 16 KiB.
const READ_PAUSE: [(u32, u32); 3] = [(150, 250), (400, 700), (900, 1500)];
const UPLOADERS: [(u32, u32); 3] = [(6, 10), (12, 20), (24, 40)];
/// Per upload: several times what the buffer holds.
const UPLOAD: u32 = 768 * 1024;

struct ZeroWindow {
    before: Counters,
    uploaders: Crowd,
}

fn inject(scene: &mut Scene, mut dose: Dose) -> Result<Box<dyn Injection>> {
    let (low, high) = dose.severity.of(READ_PAUSE);
    scene.app.turn(Knob::ReadPause, dose.draw.integer(low, high))?;
    let before = Counters::read(&scene.topology.server)?;
    let (low, high) = dose.severity.of(UPLOADERS);
    let count = dose.draw.integer(low, high);
    let uploaders =
        Crowd::start(&scene.topology.client, count, &mut dose, |_, session| load::call(UPLOAD, session))?;
    Ok(Box::new(ZeroWindow { before, uploaders }))
}

impl Injection for ZeroWindow {
    fn end(self: Box<Self>, scene: &mut Scene) -> Result<Evidence> {
        let after = Counters::read(&scene.topology.server)?;
        scene.app.turn(Knob::ReadPause, 0)?;
        let mut evidence = Evidence::default();
        evidence.note("uploaders", self.uploaders.len());
        self.uploaders.finish()?;
        evidence.at_least("zero_windows", after.since(&self.before, "TcpExt.TCPToZeroWindowAdv"), 10);
        evidence.note("wanted_zero_windows", after.since(&self.before, "TcpExt.TCPWantZeroWindowAdv"));
        Ok(evidence)
    }
}
