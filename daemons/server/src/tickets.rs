//! What proves a server's own hand: tickets of instances, and proofs of an epoch and of a revision, all as HMAC-SHA256 (RFC 2104) by a
//! key that the servers of a cluster share.
//!
//! A ticket says "this instance of this release of this app was ordered to this node", a proof "this server held the
//! lease in this epoch" or "this revision was carried out". All name their key, `<key id>.<hex>`, so that keys can be changed: the newest signs, and the
//! older ones are still known. Fields go into the MAC with their lengths, so that no two claims are one text.

use dinp_common::api::ProvedRevision;
use dinp_common::auth::{from_hex, hex};
use dinp_common::credentials::Secret;
use dinp_common::model::{AppName, InstanceId, NodeName};
use dinp_common::ticket_keys::{self, KeysError, TicketKey};
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// What a ticket is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worth {
    /// A server of this cluster has made it for just this.
    Genuine,
    /// It names a key that is known, and is not that key's; or it is no ticket at all.
    Forged,
    /// It names a key that is not known here, or there is none.
    UnknownKey,
}

/// What a ticket is for.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// Cluster id.
    pub cluster: &'a str,
    /// The node that it was ordered to.
    pub node: &'a NodeName,
    /// The instance.
    pub instance: &'a InstanceId,
    /// Its app.
    pub app: &'a AppName,
    /// Id of its release.
    pub release: u64,
}

/// The keys, the newest first.
#[derive(Clone)]
pub struct Keys(Vec<TicketKey>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(id, _)| id)).finish()
    }
}

impl Keys {
    /// Reads the credential.
    pub fn parse(text: &Secret) -> Result<Self, KeysError> {
        ticket_keys::parse(text.expose()).map(Self)
    }

    /// A ticket for this.
    pub fn ticket(&self, claim: &Claim<'_>) -> String {
        self.sign(&claim.fields())
    }

    /// What a ticket is worth as proof of this.
    pub fn judge(&self, ticket: &str, claim: &Claim<'_>) -> Worth {
        self.verify(ticket, &claim.fields())
    }

    /// Proof that `holder` leads `cluster` in `epoch`.
    pub fn proof(&self, cluster: &str, epoch: u64, holder: &str) -> String {
        self.sign(&epoch_fields(cluster, epoch, holder))
    }

    /// Whether a text is such a proof.
    pub fn proves(&self, proof: &str, cluster: &str, epoch: u64, holder: &str) -> bool {
        self.verify(proof, &epoch_fields(cluster, epoch, holder)) == Worth::Genuine
    }

    /// A revision of desired state that this server has carried out, with its proof.
    pub fn proved_revision(&self, cluster: &str, number: u64) -> ProvedRevision {
        ProvedRevision { number, proof: self.sign(&revision_fields(cluster, number)) }
    }

    /// Whether a server of this cluster has carried out this revision.
    pub fn proves_revision(&self, claimed: &ProvedRevision, cluster: &str) -> bool {
        self.verify(&claimed.proof, &revision_fields(cluster, claimed.number)) == Worth::Genuine
    }

    fn sign(&self, fields: &[String]) -> String {
        let (id, key) = &self.0[0];
        format!("{id}.{}", hex(&mac(key, fields).finalize().into_bytes()))
    }

    fn verify(&self, text: &str, fields: &[String]) -> Worth {
        let Some((id, digits)) = text.split_once('.') else {
            return if text.is_empty() { Worth::UnknownKey } else { Worth::Forged };
        };
        let Some((_, key)) = self.0.iter().find(|(known, _)| known == id) else { return Worth::UnknownKey };
        match from_hex(digits) {
            // In constant time.
            Some(bytes) if mac(key, fields).verify_slice(&bytes).is_ok() => Worth::Genuine,
            _ => Worth::Forged,
        }
    }
}

impl Claim<'_> {
    fn fields(&self) -> Vec<String> {
        let Self { cluster, node, instance, app, release } = self;
        [
            "instance".to_owned(),
            (*cluster).to_owned(),
            node.to_string(),
            instance.to_string(),
            app.to_string(),
            release.to_string(),
        ]
        .into()
    }
}

fn epoch_fields(cluster: &str, epoch: u64, holder: &str) -> Vec<String> {
    ["epoch".to_owned(), cluster.to_owned(), epoch.to_string(), holder.to_owned()].into()
}

fn revision_fields(cluster: &str, number: u64) -> Vec<String> {
    ["revision".to_owned(), cluster.to_owned(), number.to_string()].into()
}

fn mac(key: &[u8; 32], fields: &[String]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a MAC takes keys of any length");
    for field in fields {
        mac.update(&(field.len() as u64).to_be_bytes());
        mac.update(field.as_bytes());
    }
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "k1:0000000000000000000000000000000000000000000000000000000000000001";
    const NEW: &str = "k2:0000000000000000000000000000000000000000000000000000000000000002";

    fn keys(lines: &[&str]) -> Keys {
        Keys::parse(&Secret::new(lines.join("\n"))).unwrap()
    }

    #[test]
    fn a_ticket_is_good_for_one_instance_on_one_node_alone() {
        let keys = keys(&[OLD]);
        let (node, other): (NodeName, NodeName) = ("node1".parse().unwrap(), "node2".parse().unwrap());
        let (app, instance) = ("web".parse().unwrap(), InstanceId::from_bits(7));
        let claim = Claim { cluster: "c", node: &node, instance: &instance, app: &app, release: 3 };
        let ticket = keys.ticket(&claim);
        assert!(ticket.starts_with("k1."));
        assert_eq!(keys.judge(&ticket, &claim), Worth::Genuine);
        let foreign = InstanceId::from_bits(8);
        let neighbour = "shop".parse().unwrap();
        for changed in [
            Claim { node: &other, ..claim },
            Claim { instance: &foreign, ..claim },
            Claim { app: &neighbour, ..claim },
            Claim { release: 4, ..claim },
            Claim { cluster: "d", ..claim },
        ] {
            assert_eq!(keys.judge(&ticket, &changed), Worth::Forged, "{changed:?}");
        }
        for text in ["k1.", "k1.zz", "nothing", &ticket[..ticket.len() - 1]] {
            assert_eq!(keys.judge(text, &claim), Worth::Forged, "{text}");
        }
        assert_eq!(keys.judge("", &claim), Worth::UnknownKey);
    }

    #[test]
    fn a_revision_is_proved_for_one_cluster_and_one_number() {
        let keys = keys(&[OLD]);
        let proved = keys.proved_revision("c", 40);
        assert!(keys.proves_revision(&proved, "c") && !keys.proves_revision(&proved, "d"));
        assert!(!keys.proves_revision(&ProvedRevision { number: 41, ..proved }, "c"));
        assert!(!keys.proves_revision(&ProvedRevision { number: u64::MAX, proof: String::new() }, "c"));
    }

    #[test]
    fn keys_are_changed_without_a_break() {
        let (before, both, after) = (keys(&[OLD]), keys(&[NEW, OLD]), keys(&[NEW]));
        let proof = before.proof("c", 5, "a");
        assert!(both.proves(&proof, "c", 5, "a"));
        assert!(!both.proves(&proof, "c", 6, "a") && !both.proves(&proof, "c", 5, "b"));
        assert!(both.proof("c", 5, "a").starts_with("k2."));
        let (node, app, instance) = ("n".parse().unwrap(), "a".parse().unwrap(), InstanceId::from_bits(1));
        let claim = Claim { cluster: "c", node: &node, instance: &instance, app: &app, release: 1 };
        assert_eq!(after.judge(&before.ticket(&claim), &claim), Worth::UnknownKey);
    }
}
