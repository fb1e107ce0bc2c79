//! HTTP errors: a bad deployment makes the web server answer a share of the requests with a server error.
//!
//! `503`: it says that it is unavailable. `502`: it hands the request to an upstream that is dead.

use anyhow::Result;
use event::Fault;
use features::Feature;

use super::{Dose, Injection, Recipe};
use crate::evidence::Evidence;
use crate::scene::Scene;

pub const RECIPE: Recipe = Recipe {
    fault: Fault::HttpErrors,
    mechanisms: &["503", "502"],
    optional: &[],
    affected: &["tcp/198.18.1.2:80?http_status_code>=500"],
    shows: &[(Feature::HttpStatusCode, 500.0)],
    own_drops: &[],
    inject,
};

/// Percent of the requests.
const SHARE: [(f64, f64); 3] = [(5.0, 12.0), (25.0, 45.0), (70.0, 95.0)];

struct HttpErrors {
    before: u64,
    status: u16,
}

fn inject(scene: &mut Scene, mut dose: Dose) -> Result<Box<dyn Injection>> {
    let (low, high) = dose.severity.of(SHARE);
    let share = dose.draw.between(low, high);
    let choice = format!("split_clients \"$request_id\" $broken {{ {share:.2}% 1; * 0; }}\n");
    let (status, answer) = match dose.mechanism {
        // Port 9 (discard) is where nobody listens.
        "502" => (502, "location / { if ($broken) { proxy_pass http://127.0.0.1:9; } }\n"),
        _ => (503, "if ($broken) { return 503; }\n"),
    };
    let before = scene.nginx.answered(status)?;
    scene.nginx.deploy(&choice, answer)?;
    Ok(Box::new(HttpErrors { before, status }))
}

impl Injection for HttpErrors {
    fn end(self: Box<Self>, scene: &mut Scene) -> Result<Evidence> {
        let mut evidence = Evidence::default();
        let errors = scene.nginx.answered(self.status)? - self.before;
        evidence.at_least(&format!("status_{}", self.status), errors, 5);
        evidence.note("status_200", scene.nginx.answered(200)?);
        scene.nginx.deploy("", "")?;
        Ok(evidence)
    }
}
