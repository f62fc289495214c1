"""Masks: white is repainted, black is kept; what a mask picture means, and what is likely wrong with one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from noisette.errors import UserError
from noisette.reading import Picture, read

if TYPE_CHECKING:
    from noisette.clips import Clip

WHITE = 128
ALMOST = 0.1  # share of grey, as soft edges are, in what is meant to be black and white
CALLED = {  # what carries a mask: 255 and 0, the most of each, and what such a picture is
    "grey": ("white", "black", "brightest", "darkest", ""),
    "opaque": ("opaque", "transparent", "most opaque", "most transparent", "carried in alpha"),
    "holes": ("transparent", "opaque", "most transparent", "most opaque", "a picture with holes"),
}
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's L


@dataclass(frozen=True)
class Mask:
    """`values` uint8 [H, W], 0 (kept) to 255 (repainted); `carrier` says what of the picture they came from.

    carrier: grey (its brightness), opaque (its alpha, opaque is repainted) or holes (transparent is). `soft`:
    grey is how much may change, and only black is kept. `flipped`: the values are the picture's opposite.
    """

    values: NDArray[np.uint8]
    name: str = "mask"
    carrier: str = "grey"
    soft: bool = False
    flipped: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.values.shape[1], self.values.shape[0]

    @property
    def repaint(self) -> NDArray[np.bool_]:
        """True [H, W] where the picture may change: white (128 and more), or all but black in a soft mask."""
        return self.values >= self.least

    @property
    def least(self) -> int:
        """The darkest value that is repainted."""
        return 1 if self.soft else WHITE

    @property
    def strength(self) -> NDArray[np.float32]:
        """How much may change, 0 to 1 [H, W]: the grey of a soft mask, all or nothing otherwise."""
        share: NDArray[np.float32] = self.values / np.float32(255) if self.soft else self.repaint.astype(np.float32)
        return share

    def inverted(self) -> Mask:
        """Black for white: what was repainted is kept."""
        return replace(self, values=255 - self.values, flipped=not self.flipped)


def brightness(picture: Picture) -> NDArray[np.uint8]:
    """The luma of the colours [H, W], 0 to 255, whatever their alpha."""
    if picture.mode == "I;16":
        return (picture.data[..., 0] >> 8).astype(np.uint8)
    if picture.grey:
        return np.asarray(picture.data[..., 0], np.uint8)
    luma: NDArray[np.float32] = picture.data[..., :3].astype(np.float32) @ LUMA
    return np.rint(luma).astype(np.uint8)


def mask_of(picture: Picture, name: str = "mask") -> Mask:
    """The mask that a picture means.

    Opaque pictures: brightness. With transparency: one colour painted on nothing is a mask in alpha (opaque
    is repainted); black and white painted on nothing, soft edges too, is a grey mask on black; a picture with
    holes (as image editors and DALL-E use them) is repainted in the holes. No pixel less than half opaque: no holes.
    """
    alpha, grey = picture.alpha, brightness(picture)
    if alpha is None or alpha.min() == 255:
        return Mask(grey, name)
    colours = picture.data[alpha > 0][:, :-1]
    if len(colours) == 0 or (colours == colours[0]).all():
        return Mask(np.array(alpha, np.uint8), name, "opaque")
    if alpha.min() >= WHITE:
        return Mask(grey, name)
    if (colours == colours[:, :1]).all() and np.isin(colours[:, 0], (0, 255)).mean() >= 1 - ALMOST:
        return Mask(np.rint(grey * (alpha / 255.0)).astype(np.uint8), name)
    return Mask(np.array(255 - alpha, np.uint8), name, "holes")


def read_mask(path: Path) -> Mask:
    """The mask in a file. Raises UserError as `read` does."""
    return mask_of(read(path), str(path))


def lint(mask: Mask) -> list[str]:
    """What is likely not meant, a line each, with the flag that mends it. Raises UserError for an empty mask."""
    values, repaint = mask.values, mask.repaint
    if not repaint.any():
        raise UserError(empty(mask))
    *names, _, _, kind = CALLED[mask.carrier]
    painted, kept = reversed(names) if mask.flipped else names
    by, opposite = (" by --invert_mask", "leave --invert_mask out") if mask.flipped else ("", "--invert_mask")
    found = []
    if kind:
        found.append(f"the mask {mask.name} is {kind}: {painted} is repainted{by}; {opposite} for the opposite")
    if repaint.all():
        found.append(f"the mask {mask.name} is {painted} all over: all is repainted{by}, as without --mask_img")
    elif looks_inverted(repaint):
        found.append(
            f"the mask {mask.name} looks inverted: {repaint.mean():.0%} is {painted} and repainted{by}, the rim too;"
            f" {opposite} if {kept} is what should change"
        )
    between = int(((values > 0) & (values < 255)).sum())
    if between and not mask.soft:
        almost = "almost black and white" if between <= ALMOST * values.size else "grey"
        split = f"less than {WHITE} is repainted, more" if mask.flipped else f"{WHITE} and more is repainted, less"
        found.append(
            f"the mask {mask.name} is {almost}: {between:,} of its {values.size:,} pixels lie between;"
            f" {split} is kept; --soft_mask makes grey a strength"
        )
    return found


def empty(mask: Mask) -> str:
    """What to say of a mask that repaints nothing: its nearest pixel in the picture's own terms, and each way out."""
    white, black, brightest, darkest, _ = CALLED[mask.carrier]
    most = int(mask.values.max())
    ways = ["leave --invert_mask out"] if mask.flipped else []
    if most and not mask.soft:
        ways.append("--soft_mask to make grey a strength")
    if mask.flipped:
        ways.append(f"paint {black} ({255 - mask.least} and less) what should be repainted")
        said = f"is empty by --invert_mask, its {darkest} pixel is {255 - most}"
        return f"the mask {mask.name} {said}: {', or '.join(ways)}"
    ways.append(f"paint {white} ({mask.least} and more) what should be repainted")
    ways += [] if most else ["leave --mask_img out to repaint all"]
    return f"the mask {mask.name} is empty, its {brightest} pixel is {most}: {', or '.join(ways)}"


def looks_inverted(repaint: NDArray[np.bool_]) -> bool:
    """Mostly white, nearly all of its rim too: a spot to keep, where a spot to repaint is common."""
    rim = np.concatenate([repaint[0], repaint[-1], repaint[:, 0], repaint[:, -1]])
    return bool(repaint.mean() > 0.5 and rim.mean() > 0.9)


def check_same_size(base: Picture | Clip, mask: Mask) -> None:
    """Raises UserError, naming both sizes, for a mask of another size than its base."""
    if base.size != mask.size:
        (w, h), (mask_w, mask_h) = base.size, mask.size
        raise UserError(
            f"the mask {mask.name} is {mask_w}x{mask_h}, the base {w}x{h}: make them the same, or say how"
            " they meet by --fit crop, pad or stretch"
        )
