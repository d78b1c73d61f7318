-- Release ids are drawn by who writes them: a counter gives the same id again after a restore, and containers of the
-- lost release would count as those of the new one.

ALTER TABLE `release` MODIFY COLUMN id BIGINT UNSIGNED NOT NULL;
