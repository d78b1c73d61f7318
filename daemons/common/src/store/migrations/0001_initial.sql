-- The first schema. One statement each, ended by a semicolon at the end of a line.
-- Every table of desired state carries `rev`: the value of `revision.rev` when the row was last changed.

CREATE TABLE cluster (
  id TINYINT NOT NULL PRIMARY KEY CHECK (id = 1),
  cluster_id CHAR(32) NOT NULL,
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3)
);

-- Raised first in every transaction that changes desired state, and so revisions become visible in order.
CREATE TABLE revision (
  id TINYINT NOT NULL PRIMARY KEY CHECK (id = 1),
  rev BIGINT UNSIGNED NOT NULL
);

INSERT INTO revision (id, rev) VALUES (1, 0);

CREATE TABLE lease (
  name VARCHAR(32) NOT NULL PRIMARY KEY,
  owner VARCHAR(64) NOT NULL,
  url VARCHAR(255) NOT NULL DEFAULT '',
  epoch BIGINT UNSIGNED NOT NULL,
  expires DATETIME(6) NOT NULL
);

INSERT INTO lease (name, owner, epoch, expires) VALUES ('leader', '', 0, '2000-01-01 00:00:00');

-- The public key that environment values are sealed to. The server alone holds the private one.
CREATE TABLE sealing_key (
  id INT UNSIGNED NOT NULL PRIMARY KEY,
  public_key VARBINARY(32) NOT NULL,
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3)
);

-- Daemons that call other daemons. Written by `dinp setup`.
CREATE TABLE service_credential (
  name VARCHAR(63) NOT NULL PRIMARY KEY,
  role ENUM('server','dash','builder','router','hm','uic') NOT NULL,
  secret_hash VARBINARY(32) NOT NULL,
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3)
);

CREATE TABLE user (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  name VARCHAR(63) NOT NULL UNIQUE,
  password_hash VARCHAR(255) NOT NULL,
  role ENUM('user','operator','admin') NOT NULL DEFAULT 'user',
  suspended_at DATETIME(3) NULL,
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3)
);

CREATE TABLE team (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  name VARCHAR(63) NOT NULL UNIQUE,
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3)
);

CREATE TABLE team_member (
  team_id BIGINT UNSIGNED NOT NULL,
  user_id BIGINT UNSIGNED NOT NULL,
  role ENUM('viewer','deployer','owner') NOT NULL DEFAULT 'deployer',
  PRIMARY KEY (team_id, user_id),
  FOREIGN KEY (team_id) REFERENCES team (id) ON DELETE CASCADE,
  FOREIGN KEY (user_id) REFERENCES user (id) ON DELETE CASCADE
);

-- Sign-ons: of a browser at uic itself (`kind` browser) and of a client that was given an access token.
CREATE TABLE session (
  id CHAR(16) NOT NULL PRIMARY KEY,
  secret_hash VARBINARY(32) NOT NULL,
  user_id BIGINT UNSIGNED NOT NULL,
  kind ENUM('browser','access') NOT NULL,
  client VARCHAR(32) NOT NULL DEFAULT '',
  parent CHAR(16) NULL,
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  expires_at DATETIME(3) NOT NULL,
  FOREIGN KEY (user_id) REFERENCES user (id) ON DELETE CASCADE,
  INDEX (parent)
);

CREATE TABLE auth_code (
  code_hash VARBINARY(32) NOT NULL PRIMARY KEY,
  session_id CHAR(16) NOT NULL,
  client VARCHAR(32) NOT NULL,
  redirect_uri VARCHAR(512) NOT NULL,
  challenge VARCHAR(128) NOT NULL,
  expires_at DATETIME(3) NOT NULL
);

-- Scoped, expiring tokens for programs.
CREATE TABLE token (
  id CHAR(16) NOT NULL PRIMARY KEY,
  secret_hash VARBINARY(32) NOT NULL,
  user_id BIGINT UNSIGNED NOT NULL,
  name VARCHAR(63) NOT NULL,
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  expires_at DATETIME(3) NOT NULL,
  FOREIGN KEY (user_id) REFERENCES user (id) ON DELETE CASCADE
);

-- dash writes all of it but `release_id`, which the server sets when a deployment has succeeded.
-- A deleted app is a row with `deleted_at`, never a missing one.
CREATE TABLE app (
  name VARCHAR(63) NOT NULL PRIMARY KEY,
  owner VARCHAR(63) NOT NULL,
  team VARCHAR(63) NULL,
  state ENUM('started','stopped') NOT NULL DEFAULT 'started',
  instances INT UNSIGNED NOT NULL,
  release_id BIGINT UNSIGNED NULL,
  env_version INT UNSIGNED NOT NULL DEFAULT 0,
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  updated_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  deleted_at DATETIME(3) NULL,
  rev BIGINT UNSIGNED NOT NULL,
  INDEX (rev)
);

-- Never changed once written. `image` is by digest.
CREATE TABLE `release` (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  app VARCHAR(63) NOT NULL,
  number INT UNSIGNED NOT NULL,
  image VARCHAR(512) NOT NULL,
  command JSON NULL,
  memory_mb INT UNSIGNED NOT NULL,
  cpu_millis INT UNSIGNED NOT NULL,
  cpu_limit_millis INT UNSIGNED NULL,
  health JSON NULL,
  env_version INT UNSIGNED NOT NULL,
  instances INT UNSIGNED NOT NULL,
  domains JSON NOT NULL,
  created_by VARCHAR(63) NOT NULL,
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  note VARCHAR(1000) NOT NULL DEFAULT '',
  rev BIGINT UNSIGNED NOT NULL,
  UNIQUE (app, number),
  INDEX (rev)
);

-- dash writes the request (`request` from run to cancel), the server the rest.
CREATE TABLE deployment (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  app VARCHAR(63) NOT NULL,
  release_id BIGINT UNSIGNED NOT NULL,
  request ENUM('run','cancel') NOT NULL DEFAULT 'run',
  created_by VARCHAR(63) NOT NULL,
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  state ENUM('pending','rolling','verifying','succeeded','rolling_back','rolled_back','cancelled','superseded')
    NOT NULL DEFAULT 'pending',
  reason VARCHAR(1000) NOT NULL DEFAULT '',
  previous_release_id BIGINT UNSIGNED NULL,
  started_at DATETIME(3) NULL,
  finished_at DATETIME(3) NULL,
  rev BIGINT UNSIGNED NOT NULL,
  INDEX (app, id),
  INDEX (state),
  INDEX (rev)
);

-- Each change of an app's environment is a new version with all variables, so that a release names one number.
CREATE TABLE env (
  app VARCHAR(63) NOT NULL,
  version INT UNSIGNED NOT NULL,
  name VARCHAR(255) NOT NULL,
  sealed BLOB NOT NULL,
  key_id INT UNSIGNED NOT NULL,
  created_by VARCHAR(63) NOT NULL,
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  rev BIGINT UNSIGNED NOT NULL,
  PRIMARY KEY (app, version, name),
  INDEX (rev)
);

CREATE TABLE domain (
  name VARCHAR(253) NOT NULL PRIMARY KEY,
  app VARCHAR(63) NOT NULL,
  created_by VARCHAR(63) NOT NULL,
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  deleted_at DATETIME(3) NULL,
  rev BIGINT UNSIGNED NOT NULL,
  INDEX (app),
  INDEX (rev)
);

-- Compute nodes, written by the server. `address` is what stands in routes, never what an agent says.
CREATE TABLE node (
  name VARCHAR(63) NOT NULL PRIMARY KEY,
  address VARCHAR(255) NOT NULL,
  zone VARCHAR(63) NOT NULL DEFAULT '',
  secret_hash VARBINARY(32) NOT NULL,
  state ENUM('active','cordoned') NOT NULL DEFAULT 'active',
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  deleted_at DATETIME(3) NULL,
  rev BIGINT UNSIGNED NOT NULL,
  INDEX (rev)
);

-- Routers that have reported once and were not forgotten, written by the server: a new leader must know
-- whose confirmation it has to wait for.
CREATE TABLE router (
  name VARCHAR(63) NOT NULL PRIMARY KEY,
  status_url VARCHAR(255) NOT NULL,
  first_seen DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3)
);

CREATE TABLE instance_event (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  app VARCHAR(63) NOT NULL,
  instance CHAR(16) NULL,
  node VARCHAR(63) NULL,
  kind VARCHAR(32) NOT NULL,
  detail VARCHAR(1000) NOT NULL DEFAULT '',
  INDEX (app, id)
);

CREATE TABLE build (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  app VARCHAR(63) NOT NULL,
  version VARCHAR(64) NOT NULL,
  runtime VARCHAR(63) NOT NULL,
  created_by VARCHAR(63) NOT NULL,
  builder VARCHAR(63) NOT NULL,
  status ENUM('running','succeeded','failed','cancelled') NOT NULL DEFAULT 'running',
  stage VARCHAR(32) NOT NULL DEFAULT '',
  reason VARCHAR(1000) NOT NULL DEFAULT '',
  package_name VARCHAR(255) NOT NULL DEFAULT '',
  package_bytes BIGINT UNSIGNED NULL,
  package_sha256 CHAR(64) NULL,
  base VARCHAR(512) NOT NULL DEFAULT '',
  image VARCHAR(512) NULL,
  started_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  finished_at DATETIME(3) NULL,
  INDEX (app, id)
);

-- The log of a build in pieces, so that every dash can follow it while it grows.
CREATE TABLE build_log (
  build_id BIGINT UNSIGNED NOT NULL,
  seq INT UNSIGNED NOT NULL,
  text MEDIUMTEXT NOT NULL,
  PRIMARY KEY (build_id, seq)
);

CREATE TABLE audit_event (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  actor VARCHAR(63) NOT NULL,
  address VARCHAR(64) NOT NULL DEFAULT '',
  action VARCHAR(64) NOT NULL,
  object VARCHAR(255) NOT NULL,
  detail VARCHAR(1000) NOT NULL DEFAULT '',
  INDEX (object, id)
);
