-- What a node may count for at most, whatever it reports; NULL: nobody has said so.

ALTER TABLE node ADD COLUMN memory_mb INT UNSIGNED NULL AFTER secret_hash,
  ADD COLUMN cpu_millis INT UNSIGNED NULL AFTER memory_mb;
