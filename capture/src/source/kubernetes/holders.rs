//! Who holds which address: from pods and services as they change to names with a time.
//!
//! An address that more than one claims names nobody, and neither does the node's, which all pods of the host network
//! share. Where a pod takes over an address while the one before is still there, or was only just seen to go, the
//! time in doubt is nobody's: no flow is named by a guess.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use event::{NameOrigin, Naming, Timestamp, Workload};
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

type Labels = BTreeMap<String, String>;

/// What is told of objects of one kind.
pub enum Change<K> {
    /// A list of all of them begins.
    ListBegins,
    Listed(K),
    /// What was there before and is not on the list has gone.
    ListEnds,
    Applied(K),
    Deleted(K),
}

/// A pod or a service: what an address can belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Object {
    namespace: String,
    name: String,
    /// Absent where the API does not tell.
    since: Option<Timestamp>,
    addresses: Vec<IpAddr>,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Pod { labels: Labels, is_on_host_network: bool },
    Service { selector: Labels },
}

/// Objects of one kind, by their uid.
#[derive(Default)]
struct Objects {
    known: BTreeMap<String, Object>,
    /// What is on the list that is being read.
    listed: BTreeMap<String, Object>,
    /// Whether a list was complete.
    is_complete: bool,
}

/// An object before and after a change.
type Changed = (String, Option<Object>, Option<Object>);

/// Whom an address belongs to, as it was last told.
#[derive(Default)]
struct Holding {
    /// Absent where nobody holds it, or several do.
    holder: Option<String>,
    told: Workload,
    told_from: Option<Timestamp>,
    is_shared: bool,
    /// Until when it was somebody else's, or may have been.
    released: Option<Timestamp>,
}

/// All pods of a node and the cluster's services.
pub struct Holders {
    pods: Objects,
    services: Objects,
    /// The uids that claim an address.
    claims: BTreeMap<IpAddr, BTreeSet<String>>,
    /// As many as pods and services have had addresses, which are given again and again.
    holdings: BTreeMap<IpAddr, Holding>,
    /// When watching began: no name holds from before.
    begin: Timestamp,
}

impl Holders {
    pub fn new(begin: Timestamp) -> Self {
        let (pods, services) = Default::default();
        Self { pods, services, claims: BTreeMap::new(), holdings: BTreeMap::new(), begin }
    }

    /// The names that change with a pod.
    pub fn pod(&mut self, change: Change<api::Pod>, now: Timestamp) -> Vec<Naming> {
        let changed = self.pods.change(change, pod);
        let touched = self.claim(&changed);
        self.settle(&touched, now, false)
    }

    /// The names that change with a service: its own, and those of the pods that it selects.
    pub fn service(&mut self, change: Change<api::Service>, now: Timestamp) -> Vec<Naming> {
        let is_first = !self.services.is_complete;
        let changed = self.services.change(change, service);
        let mut touched = self.claim(&changed);
        let namespaces: BTreeSet<&str> = changed
            .iter()
            .flat_map(|(_, before, after)| [before, after])
            .flatten()
            .map(|service| service.namespace.as_str())
            .collect();
        let pods = self.pods.known.values().filter(|pod| namespaces.contains(pod.namespace.as_str()));
        touched.extend(pods.flat_map(|pod| &pod.addresses));
        self.settle(&touched, now, is_first)
    }

    pub fn pods(&self) -> usize {
        self.pods.known.len()
    }

    /// Whether a list of the node's pods was complete.
    pub const fn has_listed_pods(&self) -> bool {
        self.pods.is_complete
    }

    pub fn services(&self) -> usize {
        self.services.known.len()
    }

    pub fn on_host_network(&self) -> usize {
        let is_one = |pod: &&Object| matches!(pod.kind, Kind::Pod { is_on_host_network: true, .. });
        self.pods.known.values().filter(is_one).count()
    }

    /// Addresses that name somebody, and addresses that several claim.
    pub fn addresses(&self) -> (usize, usize) {
        let holdings = self.holdings.values();
        let named = holdings.clone().filter(|holding| holding.told != Workload::default());
        (named.count(), holdings.filter(|holding| holding.is_shared).count())
    }

    /// Notes who claims which address now; the addresses of all that changed.
    fn claim(&mut self, changed: &[Changed]) -> BTreeSet<IpAddr> {
        let mut touched = BTreeSet::new();
        for (uid, before, after) in changed {
            for address in before.iter().flat_map(|object| &object.addresses) {
                if let Some(uids) = self.claims.get_mut(address) {
                    uids.remove(uid);
                }
                touched.insert(*address);
            }
            for address in after.iter().flat_map(|object| &object.addresses) {
                self.claims.entry(*address).or_default().insert(uid.clone());
                touched.insert(*address);
            }
        }
        touched
    }

    /// Tells what changed about these addresses. A holder's new name holds from now on; on the first list from the
    /// holder's beginning, for it was so before.
    fn settle(&mut self, addresses: &BTreeSet<IpAddr>, now: Timestamp, is_first: bool) -> Vec<Naming> {
        let mut names = Vec::new();
        for address in addresses {
            let mut holding = self.holdings.remove(address).unwrap_or_default();
            for (time, workload) in self.settle_one(*address, &mut holding, now, is_first) {
                // What was told last is what holds: it may not go before what was told before.
                holding.told_from = holding.told_from.max(Some(time));
                let time = holding.told_from.unwrap_or(time);
                names.push(Naming { time, arrival: now, address: *address, workload: workload.clone() });
                holding.told = workload;
            }
            self.holdings.insert(*address, holding);
        }
        names
    }

    fn settle_one(
        &self,
        address: IpAddr,
        holding: &mut Holding,
        now: Timestamp,
        is_first: bool,
    ) -> Vec<(Timestamp, Workload)> {
        let claimants = self.claimants(address);
        let since = |object: &Object| object.since.unwrap_or(now).max(self.begin);
        let mut told = Vec::new();
        if let [(uid, object)] = claimants[..] {
            let (from, workload) = (since(object), self.workload(object));
            if holding.holder.as_ref() == Some(uid) {
                if holding.told != workload {
                    told.push((if is_first { from } else { now }, workload));
                }
                return told;
            }
            if std::mem::take(&mut holding.is_shared) {
                holding.released = Some(now);
            }
            let released = holding.released.filter(|released| *released > from);
            if released.is_some() && holding.told != Workload::default() {
                told.push((from, Workload::default()));
            }
            told.push((released.unwrap_or(from), workload));
            holding.holder = Some(uid.clone());
            return told;
        }
        if holding.told != Workload::default() {
            let shared_from = claimants.iter().map(|(_, object)| since(object)).max();
            told.push((shared_from.unwrap_or(now), Workload::default()));
        }
        if holding.holder.take().is_some() || (holding.is_shared && claimants.is_empty()) {
            holding.released = Some(now);
        }
        holding.is_shared = !claimants.is_empty();
        told
    }

    fn claimants(&self, address: IpAddr) -> Vec<(&String, &Object)> {
        let uids = self.claims.get(&address).into_iter().flatten();
        let object = |uid| self.pods.known.get(uid).or_else(|| self.services.known.get(uid));
        uids.filter_map(|uid| Some((uid, object(uid)?))).collect()
    }

    /// What a flow of the object's address is named.
    fn workload(&self, object: &Object) -> Workload {
        let service = match &object.kind {
            Kind::Service { .. } => object.name.clone(),
            Kind::Pod { labels, .. } => self.service_of(&object.namespace, labels).unwrap_or_default(),
        };
        let pod = match object.kind {
            Kind::Service { .. } => String::new(),
            Kind::Pod { .. } => object.name.clone(),
        };
        Workload {
            namespace: object.namespace.clone(),
            pod,
            pod_origin: Some(NameOrigin::Kubernetes),
            service_origin: (!service.is_empty()).then_some(NameOrigin::Kubernetes),
            service,
        }
    }

    /// The service that selects a pod: one with an address of its own before headless ones, and none where it is
    /// one of several.
    fn service_of(&self, namespace: &str, labels: &Labels) -> Option<String> {
        let selects = |service: &&Object| match &service.kind {
            Kind::Service { selector } => {
                service.namespace == namespace
                    && !selector.is_empty()
                    && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
            }
            Kind::Pod { .. } => false,
        };
        let (headless, others): (Vec<&Object>, Vec<&Object>) =
            self.services.known.values().filter(selects).partition(|service| service.addresses.is_empty());
        let candidates = if others.is_empty() { headless } else { others };
        if let [only] = candidates[..] { Some(only.name.clone()) } else { None }
    }
}

impl Objects {
    fn change<K>(&mut self, change: Change<K>, read: impl Fn(K) -> (String, Object)) -> Vec<Changed> {
        match change {
            Change::ListBegins => {
                self.listed.clear();
                Vec::new()
            }
            Change::Listed(object) => {
                let (uid, object) = read(object);
                self.listed.insert(uid, object);
                Vec::new()
            }
            Change::ListEnds => self.replace(),
            Change::Applied(object) => {
                let (uid, object) = read(object);
                let before = self.known.insert(uid.clone(), object.clone());
                if before.as_ref() == Some(&object) { Vec::new() } else { vec![(uid, before, Some(object))] }
            }
            Change::Deleted(object) => {
                let (uid, _) = read(object);
                let before = self.known.remove(&uid);
                vec![(uid, before, None)]
            }
        }
    }

    /// The list is what there is.
    fn replace(&mut self) -> Vec<Changed> {
        self.is_complete = true;
        let mut before = std::mem::replace(&mut self.known, std::mem::take(&mut self.listed));
        let mut changed = Vec::new();
        for (uid, object) in &self.known {
            let before = before.remove(uid);
            if before.as_ref() != Some(object) {
                changed.push((uid.clone(), before, Some(object.clone())));
            }
        }
        changed.extend(before.into_iter().map(|(uid, object)| (uid, Some(object), None)));
        changed
    }
}

fn pod(pod: api::Pod) -> (String, Object) {
    let (spec, status) = (pod.spec.unwrap_or_default(), pod.status.unwrap_or_default());
    let is_on_host_network = spec.host_network == Some(true);
    // One that has ended keeps its address on paper, while another gets it.
    let has_ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let addresses = if is_on_host_network || has_ended {
        Vec::new()
    } else {
        let all = status.pod_ips.unwrap_or_default().into_iter().map(|address| address.ip);
        addresses(all.chain(status.pod_ip))
    };
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    // The address is given after that.
    let since = status.start_time.as_ref().and_then(time);
    object(pod.metadata, since, addresses, Kind::Pod { labels, is_on_host_network })
}

fn service(service: api::Service) -> (String, Object) {
    let spec = service.spec.unwrap_or_default();
    // External addresses and those of load balancers may be a node's, and several services'.
    let addresses = addresses(spec.cluster_ips.unwrap_or_default().into_iter().chain(spec.cluster_ip));
    let selector = spec.selector.unwrap_or_default();
    let since = service.metadata.creation_timestamp.as_ref().and_then(time);
    object(service.metadata, since, addresses, Kind::Service { selector })
}

fn object(
    metadata: ObjectMeta,
    since: Option<Timestamp>,
    addresses: Vec<IpAddr>,
    kind: Kind,
) -> (String, Object) {
    let namespace = metadata.namespace.unwrap_or_default();
    let name = metadata.name.unwrap_or_default();
    let uid = metadata.uid.unwrap_or_else(|| format!("{namespace}/{name}"));
    (uid, Object { namespace, name, since, addresses, kind })
}

/// What is an address, once: a headless service has `None`.
fn addresses(texts: impl Iterator<Item = String>) -> Vec<IpAddr> {
    let found: BTreeSet<IpAddr> = texts.filter_map(|text| text.parse().ok()).collect();
    found.into_iter().collect()
}

fn time(time: &Time) -> Option<Timestamp> {
    i64::try_from(time.0.as_nanosecond()).ok().map(Timestamp::from_nanos)
}
