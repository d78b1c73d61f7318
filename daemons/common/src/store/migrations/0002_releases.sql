-- What people set for an app's times stands in each release; why a deployment failed is quoted from its instance.

ALTER TABLE `release` ADD COLUMN timing JSON NULL AFTER health;

ALTER TABLE deployment ADD COLUMN output JSON NULL AFTER reason;
