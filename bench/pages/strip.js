"use strict";
// A strip of 32 x 2 black and white cells along the top of the page. Row 1 is the time of the drawing, in ms of Unix
// time modulo 2^24, row 2 the number of the drawing, each as 24 bits and a check byte, most significant first.
// bench/analysis/strip.py reads it back; the check byte's last step keeps all black and all white from being numbers.
const CHECK_FLIP = 0x5a;

function checkByte(value) {
  let remainder = 0;
  for (let bit = 23; bit >= 0; bit--) {
    const carry = ((remainder >> 7) ^ (value >> bit)) & 1;
    remainder = ((remainder << 1) & 0xff) ^ (carry ? 0x07 : 0);
  }
  return remainder ^ CHECK_FLIP;
}

function makeStrip(parent) {
  const canvas = document.createElement("canvas");
  canvas.width = 32;
  canvas.height = 2;
  canvas.style.cssText =
    "position:fixed;left:0;top:0;width:100vw;height:12.5vh;image-rendering:pixelated;z-index:9";
  parent.append(canvas);
  const context = canvas.getContext("2d");
  const cells = context.createImageData(32, 2);
  let drawings = 0;
  return function draw(time) {
    drawings += 1;
    [Math.round(performance.timeOrigin + time) % 2 ** 24, drawings].forEach((value, row) => {
      const word = ((value << 8) | checkByte(value)) >>> 0;
      for (let column = 0; column < 32; column++) {
        const light = (word >>> (31 - column)) & 1 ? 255 : 0;
        cells.data.set([light, light, light, 255], 4 * (32 * row + column));
      }
    });
    context.putImageData(cells, 0, 0);
    return drawings;
  };
}

function setting(name, usual) {
  const given = new URLSearchParams(location.search).get(name);
  return given === null ? usual : Number(given);
}
