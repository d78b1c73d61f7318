//! A proxy that speaks TLS in front of a server that does not, with certificates of its own authority.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::World;

/// An authority that signs certificates of servers.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its certificate, in a file of that name.
    pub fn file(&self, world: &World, name: &str) -> PathBuf {
        world.file(name, self.0.pem().as_bytes())
    }

    /// Signs a certificate for a server of that name.
    pub fn sign(&self, name: &str) -> Certificate {
        self.sign_with(CertificateParams::new([name.to_owned()]).unwrap())
    }

    /// As `sign`; it was valid until a year that has passed.
    pub fn sign_expired(&self, name: &str) -> Certificate {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2001, 1, 1), rcgen::date_time_ymd(2002, 1, 1));
        self.sign_with(params)
    }

    fn sign_with(&self, params: CertificateParams) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let chain = params.signed_by(&key, &self.0).unwrap().der().clone();
        Certificate { chain, key: key.serialize_der().into() }
    }
}

/// What a server shows.
pub struct Certificate {
    chain: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
}

/// Speaks TLS as `localhost`, and passes on to `behind` what comes; its URL.
pub async fn proxy(certificate: Certificate, behind: SocketAddr) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.chain], certificate.key.into())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut client = acceptor.accept(stream).await?;
                let mut server = TcpStream::connect(behind).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    url
}
