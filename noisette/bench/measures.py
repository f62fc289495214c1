"""Numbers about one picture and about two: each named, with its unit and where it is from.

Values are Python floats, ready for JSON. SSIM needs scikit-image and is left out where it is not installed:
`pip3 install -r requirements-bench.txt`.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noisette import seams
from noisette.errors import UserError
from noisette.masks import LUMA
from noisette.pixels import over, shown
from noisette.reading import Picture
from noisette.verify import decibels

VERSION = 2  # of the meaning of these numbers: stored ones of another version are computed anew
TO_ANOTHER = ("psnr", "ssim", "delta_e", "perceptual")  # of a picture to another of its size
SSIM_WINDOW = 11  # pixels a side: smaller pictures have no SSIM
INSTALL = "pip3 install -r requirements-bench.txt"
ABOUT = {
    "lightness": "mean luma, 0 to 1 (ITU-R BT.601)",
    "contrast": "standard deviation of luma, 0 to 1",
    "colourfulness": "Hasler and Süsstrunk 2003, eq. 12; 0 is grey, 33 moderate, 109 extreme",
    "clipped": "share of values at 0 or 255, 0 to 1",
    "sharpness": "variance of the Laplacian of luma in 0..255 (Pech-Pacheco et al. 2000)",
    "seam": "mean CIEDE2000 between neighbours across the mask's edge",
    "seam_excess": "seam less the mean CIEDE2000 of the same neighbours 3 pixels to either side; 0 is no seam",
    "kept": "pixels that the mask keeps",
    "kept_differing": "of those, how many are not the base's",
    "psnr": "peak signal-to-noise ratio to the reference, dB; of a clip by the error of all frames; none if equal",
    "ssim": "structural similarity to the reference, Gaussian window of sigma 1.5 (Wang et al. 2004); 1 is equal",
    "delta_e": "mean CIEDE2000 to the reference; 1 is just noticeable",
    "similarity": "cosine between picture and prompt in the named encoders' space, -1 to 1 (similarity.py)",
    "perceptual": "distance in the latents of noisette-1's autoencoder (features.py); not LPIPS, 0 is equal",
}
ABOUT |= {f"base_{name}": f"to the base instead, as the run met it: {ABOUT[name]}" for name in TO_ANOTHER}

Numbers = dict[str, float]


def has_skimage() -> bool:
    """Whether scikit-image is there."""
    return find_spec("skimage") is not None


def of_picture(picture: Picture) -> Numbers:
    """Colour and sharpness of one picture."""
    rgb = shown(picture)
    luma: NDArray[np.float32] = rgb @ LUMA
    red_green = rgb[..., 0] - rgb[..., 1]
    yellow_blue = (rgb[..., 0] + rgb[..., 1]) / 2 - rgb[..., 2]
    spread = float(np.hypot(red_green.std(), yellow_blue.std()))
    distance = float(np.hypot(red_green.mean(), yellow_blue.mean()))
    return {
        "lightness": float(luma.mean()) / 255,
        "contrast": float(luma.std()) / 255,
        "colourfulness": spread + 0.3 * distance,
        "clipped": float(((rgb == 0) | (rgb == 255)).mean()),
        "sharpness": float(laplacian(luma).var()),
    }


def laplacian(luma: NDArray[np.float32]) -> NDArray[np.float32]:
    """The four-neighbour Laplacian of [H, W], inside the border."""
    inner = luma[1:-1, 1:-1]
    around: NDArray[np.float32] = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * inner
    return around


def of_edit(picture: Picture, base: Picture, repaint: NDArray[np.bool_]) -> Numbers:
    """Of an inpainted picture beside its fitted base: pixels kept, and the seam along the mask's edge."""
    same_kind = (picture.mode, picture.size) == (base.mode, base.size)
    differing = (picture.data != base.data).any(axis=-1) & ~repaint if same_kind else ~repaint
    counts = {"kept": float((~repaint).sum()), "kept_differing": float(differing.sum())}
    return {**counts, **seam(picture, repaint)}


def seam(picture: Picture, repaint: NDArray[np.bool_], beside: int = 3) -> Numbers:
    """CIEDE2000 across the mask's edge, and how much that is above the picture's own change `beside` pixels away.

    Pairs are horizontal and vertical neighbours of which one is repainted and one kept.
    """
    rgb = over(picture, 255)
    changes: dict[int, list[NDArray[Any]]] = {0: [], beside: []}
    for turned, mask in ((rgb, repaint), (rgb.swapaxes(0, 1), repaint.T)):
        rows, columns = np.nonzero(mask[:, :-1] != mask[:, 1:])
        for shift in (0, -beside, beside):
            inside = (columns + shift >= 0) & (columns + shift < mask.shape[1] - 1)
            row, column = rows[inside], columns[inside] + shift
            changes[abs(shift)].append(delta_e(turned[row, column], turned[row, column + 1]))
    across, near = (np.concatenate(changes[shift]) for shift in (0, beside))
    if not len(across) or not len(near):
        return {}
    return {"seam": float(across.mean()), "seam_excess": float(across.mean() - near.mean())}


def delta_e(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """CIEDE2000 (Sharma et al. 2005) between sRGB colours [..., 3] in 0..255, D65."""
    return seams.delta_e(seams.lab(a), seams.lab(b))


def of_pair(picture: Picture, reference: Picture) -> Numbers:
    """PSNR, SSIM and CIEDE2000 of a picture to a reference of the same size. Raises UserError for another size."""
    if picture.size != reference.size:
        sizes = "{}x{} and {}x{}".format(*picture.size, *reference.size)
        raise UserError(f"pictures of {sizes} can't be compared pixel by pixel: bring them to one size first")
    if (picture.mode, picture.data.dtype) != (reference.mode, reference.data.dtype):
        picture, reference = (Picture(np.rint(shown(p)).astype(np.uint8)) for p in (picture, reference))
    numbers = {
        "psnr": decibels(picture, reference),
        "delta_e": float(delta_e(shown(picture), shown(reference)).mean()),
    }
    seen = has_skimage() and min(picture.size) >= SSIM_WINDOW
    return numbers | ({"ssim": ssim(picture, reference)} if seen else {})


def ssim(picture: Picture, reference: Picture) -> float:
    """Structural similarity as its authors computed it: Gaussian window of sigma 1.5, each channel, the mean."""
    from skimage.metrics import structural_similarity

    similarity = structural_similarity(  # type: ignore[no-untyped-call]
        shown(picture), shown(reference), channel_axis=-1, data_range=255.0,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    return float(similarity)


def need_skimage() -> None:
    """Raises UserError where scikit-image is missing."""
    if not has_skimage():
        raise UserError(f"SSIM needs scikit-image: {INSTALL}")
