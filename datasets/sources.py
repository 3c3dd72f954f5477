"""Where the field's data sets come from: addresses, checksums, and what goes where below the data root.

Checksums (MD5) and addresses of images are torchvision's; split files are CoOp's, with SHA-256 sums of their mirrored copies.
Files without a checksum are checked by content: an archive must unpack, a split file must have the published sizes.
"""

from dataclasses import dataclass, field

DRIVE = "https://drive.google.com/uc?id="
OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"


@dataclass(frozen=True)
class Download:
    """One file. `digest` is "md5:..." or "sha256:...", or empty where none is known.

    A plain file goes to `file` in the data set's folder. For an archive, `products` maps paths inside it to paths in
    that folder; `inner` is an archive inside it that is unpacked too, in the same place.
    """

    url: str
    file: str
    digest: str = ""
    products: dict[str, str] = field(default_factory=dict)
    inner: str = ""

    @property
    def targets(self) -> tuple[str, ...]:
        """The paths in the data set's folder once this is done."""
        return tuple(self.products.values()) or (self.file,)


@dataclass(frozen=True)
class Source:
    """A data set: its folder below the data root, its downloads, and its number of train, val and test images.

    `by_hand` maps paths in the folder that no address serves to what a person has to do.
    """

    folder: str
    sizes: tuple[int, int, int]
    downloads: tuple[Download, ...]
    by_hand: dict[str, str] = field(default_factory=dict)


def _split(title: str, drive_id: str, sha256: str = "") -> Download:
    return Download(DRIVE + drive_id, f"split_zhou_{title}.json", sha256 and f"sha256:{sha256}")


SOURCES = {
    "Caltech101": Source("caltech-101", (4128, 1649, 2465), (
        _split("Caltech101", "1hyarUivQE36mY6jSomru6Fjd-JzwcCzN",
               "52ce83205ff8ff8a1a18119aad6376120ae35c36e783a984bc560cbf10e73fa5"),
        Download("https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip", "caltech-101.zip",
                 "md5:3138e1922a9193bfa496528edbbc45d0", {"101_ObjectCategories": "101_ObjectCategories"},
                 inner="caltech-101/101_ObjectCategories.tar.gz"))),
    "DTD": Source("dtd", (2820, 1128, 1692), (
        _split("DescribableTextures", "1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x",
               "f26ebeccd2b58e68d70f07a0dc39fe49bf7b69024bac34396b954dfd87969c38"),
        Download(f"{OXFORD}/dtd/download/dtd-r1.0.1.tar.gz", "dtd-r1.0.1.tar.gz", "md5:fff73e5086ae6bdbea199a49dfb8a4c1",
                 {"dtd/images": "images", "dtd/labels": "labels", "dtd/imdb": "imdb"}))),
    "EuroSAT": Source("eurosat", (13500, 5400, 8100), (
        _split("EuroSAT", "1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o",
               "541503a77d0b26b735d85ec7a3e672804fe0aa466c2e5f07da772cc6c0af8ad2"),
        Download("https://huggingface.co/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
                 "EuroSAT.zip", "md5:c8fa014336c82ac7804f0398fcb19387", {"2750": "2750"}))),
    "FGVCAircraft": Source("fgvc_aircraft", (3334, 3333, 3333), (
        Download(f"{OXFORD}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz", "fgvc-aircraft-2013b.tar.gz", "",
                 {f"fgvc-aircraft-2013b/data/{name}": name for name in (
                     "images", "variants.txt", "images_variant_train.txt", "images_variant_val.txt",
                     "images_variant_test.txt")}),)),
    "Flowers102": Source("oxford_flowers", (4093, 1633, 2463), (
        _split("OxfordFlowers", "1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT",
               "2f50c42fc1a17ca13c271cb4269b1347bdb43d2be672e34f74a4e4cbfbcca794"),
        Download(DRIVE + "1AkcxCXeK_RCGCEC_GvmWxjcjaNhu-at0", "cat_to_name.json"),
        Download(f"{OXFORD}/flowers/102/imagelabels.mat", "imagelabels.mat", "md5:e0620be6f572b9609742df49c70aed4d"),
        Download(f"{OXFORD}/flowers/102/102flowers.tgz", "102flowers.tgz", "md5:52808999861908f626f3c1f4e79d11fa",
                 {"jpg": "jpg"}))),
    "Food101": Source("food-101", (50500, 20200, 30300), (
        _split("Food101", "1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl"),
        Download("http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz", "food-101.tar.gz", "md5:85eeb15f3717b99a5da872d97d918f87",
                 {"food-101/images": "images", "food-101/meta": "meta"}))),
    "ImageNet": Source("imagenet", (1281167, 0, 50000), (
        Download(DRIVE + "1-61f_ol79pViBFDG_IDlUQSwoLcn2XXF", "classnames.txt"),), {
            "images/train": "register at https://image-net.org, download ILSVRC2012_img_train.tar and unpack it and the "
                            "archives in it into images/train, a folder for each class (n01440764, ...)",
            "images/val": "download ILSVRC2012_img_val.tar and sort its images into the same class folders in images/val"}),
    "OxfordPets": Source("oxford_pets", (2944, 736, 3669), (
        _split("OxfordPets", "1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs",
               "d7f3ffe65b3919f95132e51422894ae18686b83c331fd8c0adcdc3dc2de6301e"),
        Download(f"{OXFORD}/pets/data/images.tar.gz", "images.tar.gz", "md5:5c4f3ee8e5d25df40f4fd59a7f44e54c",
                 {"images": "images"}),
        Download(f"{OXFORD}/pets/data/annotations.tar.gz", "annotations.tar.gz", "md5:95a8c909bbe2e81eed6a22bccdf3f68f",
                 {"annotations": "annotations"}))),
    "StanfordCars": Source("stanford_cars", (6509, 1635, 8041), (
        _split("StanfordCars", "1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT",
               "40acee7aa65c8e4727a32d90e884b7c3f8960b523422317e163f7af65432959d"),), {
            "cars_train": "the authors' links (ai.stanford.edu) are dead; take a copy that somebody published, such as those "
                          "on Kaggle or Hugging Face, and bring the 8,144 train images, 00001.jpg to 08144.jpg, to cars_train",
            "cars_test": "and its 8,041 test images, 00001.jpg to 08041.jpg, to cars_test"}),
    "SUN397": Source("sun397", (15880, 3970, 19850), (
        _split("SUN397", "1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq"),
        Download("http://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz", "SUN397.tar.gz",
                 "md5:8ca2778205c41d23104230ba66911c7a", {"SUN397": "SUN397"}))),
    "UCF101": Source("ucf101", (7639, 1898, 3783), (
        _split("UCF101", "1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y",
               "d78cb834f7c5792ceaff2c5ee2d7c76a9e4086e48a3a6b01232989d29cbefdd8"),
        Download(DRIVE + "10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O", "UCF-101-midframes.zip", "",
                 {"UCF-101-midframes": "UCF-101-midframes"}))),
}
