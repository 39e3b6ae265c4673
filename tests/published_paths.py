"""Paths of every data set in the catalogue as they are published, with the known traps of each."""

from __future__ import annotations

#: data set -> path below its root -> label (None: no label)
PATHS: dict[str, dict[str, str | None]] = {
    "rwf_2000": {
        "train/Fight/-1l5631l3fg_0.avi": "fight",
        "train/Fight/0Ow4cotKOuw_0.avi": "fight",
        "val/NonFight/_2UhYbKC_Vw_12.AVI": "nonfight",
        "val/NonFight/10uSOcwS_0.avi": "nonfight",
        "train/NonFight/Fight_0.avi": "nonfight",
        "test/Fight/x_0.avi": None,
        "train/fight/x_0.avi": None,
    },
    "hockey_fights": {
        "fi1_xvid.avi": "fight",
        "no142__xvid.avi": "nonfight",
        "no65___xvid.avi": "nonfight",
        "no238mpg_xvid.avi": "nonfight",
        "fi500_xvid.AVI": "fight",
        "nofi1_xvid.avi": None,
        "video1.avi": None,
    },
    "real_life_violence": {
        "Violence/V_1.mp4": "fight",
        "NonViolence/NV_1.mp4": "nonfight",
        "NonViolence/NV_1000.MP4": "nonfight",
        "NonViolence/V_1.mp4": None,
        "Violence/NV_1.mp4": None,
    },
    "cctv_fights": {
        "CCTV_DATA/training/fight_0001.mpeg": "fight",
        "NON_CCTV_DATA/testing/fight_0002.mpeg": "fight",
        "NON_CCTV_DATA/other/fight_0003.mpeg": None,
    },
    "movie_fights": {
        "fights/newfi1.avi": "fight",
        "noFights/1_xvid.avi": "nonfight",
        "noFights/2.mpg": "nonfight",
        "noFights/deep/1.avi": None,
    },
    "ucf_crime": {
        "Fighting/Fighting002_x264.mp4": "fight",
        "Anomaly-Videos-Part-1/Abuse/Abuse001_x264.mp4": "fight",
        "Shoplifting/Shoplifting001_x264.mp4": "exclude",
        "Explosion/Explosion001_x264.mp4": "exclude",
        "Training-Normal-Videos-Part-1/Normal_Videos003_x264.mp4": "nonfight",
        "Testing_Normal_Videos_Anomaly/Normal_Videos_015_x264.mp4": "nonfight",
        "Fighting/Arson001_x264.mp4": None,
    },
    "surveillance_fight": {
        "fight/fi001.mp4": "fight",
        "noFight/nofi150.MP4": "nonfight",
        "noFight/fi001.mp4": None,
        "fight/nofi001.mp4": None,
    },
    "scvd": {
        "SCVD_converted/Train/Normal/n001_converted.avi": "nonfight",
        "SCVD_converted/Test/Violence/t_v001_converted.avi": "fight",
        "SCVD_converted/Train/Weaponized/w001_converted.avi": "fight",
        "SCVD_converted_sec_split/Train/Normal/n001_0.avi": None,
    },
    "violent_flows": {
        "1/Violence/crowd_violence__Title__uploader__MgXe0isUnSg.avi": "fight",
        "5/NonViolence/stadium_crowds__Violence__uploader__cut.avi": "nonfight",
        "6/Violence/crowd__Title__uploader__MgXe0isUnSg.avi": None,
    },
    "xd_violence": {
        "A.Film.1999__#00-01-00_00-02-00_label_A.mp4": "nonfight",
        "A.Film.1999__#00-01-00_00-02-00_label_B1-0-0.mp4": "fight",
        "v=abc__#1_label_B2-B1-0.mp4": "fight",
        "v=abc__#2_label_B2-G-0.mp4": "exclude",
        "v=abc__#1_label_B6-0-0.mp4": "exclude",
        "v=abc__#1_label_G-B2-0.mp4": "exclude",
        "v=abc__#1.mp4": None,
    },
    "airtlab": {
        "violent/cam1/1.mp4": "fight",
        "non-violent/cam2/1.mp4": "nonfight",
        "non-violent/cam3/1.mp4": None,
    },
    "ubi_fights": {
        "videos/fight/F_0_1_0_0_0.mp4": "fight",
        "videos/normal/N_0_0_0_1_0.mp4": "nonfight",
        "videos/normal/F_0_1_0_0_0.mp4": None,
    },
    "bus_violence": {
        "Violence/VIOLENCE_1.mp4": "fight",
        "NoViolence/NONVIOLENCE_1.mp4": "nonfight",
        "NonViolence/NONVIOLENCE_1.mp4": None,
    },
}
