// A page that needs native modules beside Express.
const bcrypt = require('bcrypt');
const express = require('express');
const sharp = require('sharp');

const app = express();
app.set('trust proxy', true);

app.get('/', async (request, response) => {
  const hash = await bcrypt.hash('secret', 4);
  const blue = { width: 8, height: 8, channels: 3, background: 'blue' };
  const picture = await sharp({ create: blue }).png().toBuffer();
  const known = await bcrypt.compare('secret', hash);
  response.json({ node: process.version, scheme: request.protocol, bcrypt: known, sharp: picture.length > 0 });
});

app.listen(process.env.PORT);
