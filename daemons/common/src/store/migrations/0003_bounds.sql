-- What is dropped by its age, or counted for its owner, is found without reading whole tables.

ALTER TABLE app ADD INDEX (owner), ADD INDEX (team), ADD INDEX (deleted_at);

ALTER TABLE domain ADD INDEX (deleted_at);

ALTER TABLE session ADD INDEX (expires_at);

ALTER TABLE auth_code ADD INDEX (session_id), ADD INDEX (expires_at);

ALTER TABLE instance_event ADD INDEX (at);

ALTER TABLE audit_event ADD INDEX (at), ADD INDEX (actor, id);

ALTER TABLE build ADD INDEX (started_at);

-- Names of users and teams that were removed: images under such a name stay in the registry, and whoever got the name
-- next would inherit them.
CREATE TABLE former_name (
  name VARCHAR(63) NOT NULL PRIMARY KEY,
  removed_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3)
);
