-- Builds go on after a restart of their builder, and another builder sees which have lost theirs.
ALTER TABLE build
  -- 1 for the first, and one more whenever it begins again.
  ADD COLUMN attempt TINYINT UNSIGNED NOT NULL DEFAULT 1 AFTER builder,
  -- When its builder last said that it is at it.
  ADD COLUMN beat_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) AFTER attempt,
  -- Whether somebody wants it to end.
  ADD COLUMN cancel_asked BOOL NOT NULL DEFAULT FALSE AFTER beat_at,
  -- [{"stage": "building", "at": milliseconds since 1970}, ...], in the order in which they began.
  ADD COLUMN stages JSON NOT NULL DEFAULT (JSON_ARRAY()) AFTER stage,
  -- What whoever asked says of this version.
  ADD COLUMN note VARCHAR(255) NOT NULL DEFAULT '' AFTER created_by,
  -- Where the package came from, as it may be shown; empty where it was uploaded.
  ADD COLUMN source VARCHAR(1024) NOT NULL DEFAULT '' AFTER note,
  -- Whether that is enough to fetch it again.
  ADD COLUMN can_fetch_again BOOL NOT NULL DEFAULT FALSE AFTER source,
  -- What the image will be called.
  ADD COLUMN image_name VARCHAR(512) NOT NULL DEFAULT '' AFTER image,
  ADD INDEX (status, builder);

-- What builders have pushed, until it is deleted: the registry itself does not say how old an image is.
CREATE TABLE image (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  app VARCHAR(63) NOT NULL,
  version VARCHAR(64) NOT NULL,
  repository VARCHAR(255) NOT NULL,
  digest CHAR(71) NOT NULL,
  build_id BIGINT UNSIGNED NOT NULL,
  pushed_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  INDEX (app, id),
  INDEX (pushed_at)
);

-- control:5000/team/app:version@sha256:...
INSERT INTO image (app, version, repository, digest, build_id, pushed_at)
  SELECT app, version, SUBSTRING_INDEX(SUBSTRING(image, LOCATE('/', image) + 1), ':', 1), SUBSTRING_INDEX(image, '@', -1),
    id, finished_at
  FROM build WHERE status = 'succeeded' AND image LIKE '%@sha256:%' AND finished_at IS NOT NULL;
